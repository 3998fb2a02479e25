// The private memory node of `rmemfs --local`: an rmemd that serves one file system over DIR/node.sock.
//
// It is found by asking the socket. One that is stopped (SIGSTOP, a debugger) cannot say who it is: then the process
// that DIR/node.pid names is the node if it is an rmemd that was given this very pool. It outlives a killed mount, so
// the next mount finds it; when it was killed too it is started again and re-adopts its pool file, which is in memory
// (/dev/shm) until the machine restarts. A clean unmount ends it with SIGTERM, or with SIGKILL when that does not help;
// the pool file stays, and a killed node loses nothing of it. Blocks; main thread only.
#pragma once

#include <cstdint>
#include <string>

#include "manager/superblock.h"
#include "util/result.h"

namespace rmemfs {

inline constexpr const char* kLocalNodeAddress = "shm:node.sock";  // relative to DIR

struct LocalNode {
  std::string directory;
  std::string pool;  // path of the pool file
  std::uint64_t size_bytes = 0;
};

// Returns once the node answers. kUnreachable with the last line of DIR/node.log when it does not start, or with its
// pid when it runs but does not answer; kInvalid when another pool's node answers at DIR/node.sock.
Result<void> start_local_node(const LocalNode& node);
// Notes in DIR/node.pool which pool a first mount is about to make. Until the superblock says so nothing else does, and
// the memory of a mount and a node that are killed meanwhile would be taken until the machine restarts.
Result<void> note_local_pool(const LocalNode& node);
// The superblock says so now.
void forget_local_pool_note(const LocalNode& node);
// Ends a node that a first mount left behind when it was killed before it had made the file system, and removes its
// pool, also when the node was killed too. The caller holds the directory's lock and has found no superblock. kInvalid
// when the node is somebody else's.
Result<void> remove_unfinished_node(const std::string& directory);
// Ends it and waits for that, for a few seconds. Another pool's node is left alone.
void stop_local_node(const LocalNode& node);
// Removes the pool of a node that has ended, and the node's files in the directory.
void remove_local_node(const LocalNode& node);
// A name for a new pool file.
std::string new_local_pool();

}  // namespace rmemfs
