// SessionTable: the streams of one target, for what concerns several of them: a session's new stream ends its older
// one, a newer epoch ends the older sessions, revoked regions are waited for.
//
// Invariants:
//   - a stream is in the table from adopt() until its worker drops it;
//   - a stream states its session before the node admits it, so end_sessions() finds it however the two interleave;
//   - the table's mutex is never held while waiting for a stream or calling into a stream's worker.
// Thread-safe; takes a Mutex of rank kTransport.
#pragma once

#include <memory>
#include <vector>

#include "transport/connection.h"
#include "util/mutex.h"

namespace rmemfs {

class TargetStream;

class SessionTable {
 public:
  void add(std::shared_ptr<TargetStream> stream);
  void remove(const TargetStream& stream);
  std::size_t size() const;

  // Ends the other streams of `stream`'s session (C5), all but a newer incarnation. When it returns true, none of their
  // operations is under way; false: a newer stream of the session is there, and this one is to go.
  bool supersede(const TargetStream& stream);
  void end_sessions(const Uuid& file_system, MountEpoch epoch);
  void quiesce();

 private:
  mutable Mutex mutex_{LockRank::kTransport};
  std::vector<std::shared_ptr<TargetStream>> streams_;  // guarded by mutex_
};

}  // namespace rmemfs
