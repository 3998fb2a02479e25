#!/bin/bash
# The transport's unit suite over verbs: what every provider promises, and what verbs alone does.
source "$(dirname "$0")/lib.sh"

guest 0 --timeout 200 -- "$BIN/verbs_provider_test" --color_output=no --report_level=short
grep -q 'test cases out of' "$WORK/output" || fail "the suite did not report"
if grep -Eq 'aborted|skipped|failed|disabled' "$WORK/output"; then fail "not every case passed"; fi
pass "$(grep -o '[0-9]* test cases out of [0-9]* passed' "$WORK/output") over verbs"
