// TargetWorker: one thread of a target and the streams that were given to it. It sleeps in epoll, or spins for a while
// after the last work when it is told to. Streams are served in slices, so one that never stops sending does not keep
// the others waiting.
//
// Thread-safety: adopt() from any thread; takes a Mutex of rank kLeaf. The destructor ends all streams and joins.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "transport/session_table.h"
#include "transport/target.h"
#include "transport/target_stream.h"
#include "util/mutex.h"

namespace rmemfs {

class TargetWorker {
 public:
  static Result<std::unique_ptr<TargetWorker>> make(TransportKind transport, RegionSource& regions, SessionTable& table,
                                                    const Target::Options& options);
  ~TargetWorker();
  void adopt(UniqueFd stream);

 private:
  struct Waiting {
    std::weak_ptr<TargetStream> stream;
    TimePoint deadline;
  };

  TargetWorker(TransportKind transport, RegionSource& regions, SessionTable& table, const Target::Options& options)
      : transport_(transport), regions_(regions), table_(table), options_(options) {}
  void run();
  void take_adopted();
  bool serve(TargetStream& stream);  // whether something moved; may drop the stream
  void drop(TargetStream& stream);
  int sleep_ms(TimePoint now) const;
  void end_silent(TimePoint now);

  // Constant after construction.
  const TransportKind transport_;
  RegionSource& regions_;
  SessionTable& table_;
  const Target::Options options_;
  UniqueFd epoll_;
  UniqueFd wakeup_;

  std::atomic<bool> stop_{false};
  Mutex mutex_{LockRank::kLeaf};
  std::vector<UniqueFd> adopted_;  // guarded by mutex_

  // The thread's.
  std::unordered_map<TargetStream*, std::shared_ptr<TargetStream>> streams_;
  std::vector<TargetStream*> again_;  // more to do without an event
  std::deque<Waiting> greeting_;      // streams that have not introduced themselves, oldest first
  TargetStream* hot_ = nullptr;       // moved last: looked at first when spinning

  std::thread thread_;  // last: it uses the others
};

}  // namespace rmemfs
