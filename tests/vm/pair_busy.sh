#!/bin/bash
# As pair.sh: fencing while the node's packets are stuck, and the node's machine killed under load.
SCENE=busy
source "$(dirname "$0")/pair.sh"
