// FaultyConnection: a Connection around another one that drops, delays, tears and reorders operations by a seed, as
// nbdkit's filters do. It keeps the contract (C1: each operation completes once), so the code under test must cope.
// Belongs to one thread, as every Connection. A given seed and order of calls gives the same faults.
#pragma once

#include <list>
#include <random>

#include "transport/connection.h"
#include "util/unique_fd.h"

namespace rmemfs {

class FaultyConnection final : public Connection {
 public:
  struct Faults {
    std::uint64_t seed = 1;
    // Chances in a thousand, per operation; what none of them hits goes through.
    unsigned drop = 0;     // never forwarded: kDeadline at its deadline (needs one, else it goes through)
    unsigned tear = 0;     // a WRITE lands only up to a random byte, then fails with kUnreachable
    unsigned delay = 0;    // forwarded after up to max_delay
    unsigned reorder = 0;  // its completion is held back until the second next poll()
    Duration max_delay = std::chrono::milliseconds(5);
    std::uint64_t fail_nth = 0;  // the n-th operation (from 1) fails with fail_error and is not forwarded
    Errc fail_error = Errc::kUnreachable;
  };

  FaultyConnection(std::unique_ptr<Connection> inner, const Faults& faults);
  ~FaultyConnection() override;

  Posted post(Operation& op) override;
  void submit() override;
  void poll(std::vector<Operation*>& done) override;
  void prepare(const RemoteRegion& region) override { inner_->prepare(region); }
  int event_fd() const override { return epoll_.get(); }
  std::size_t outstanding() const override;
  ConnectionStatistics statistics() const override { return inner_->statistics(); }

  std::uint64_t posted() const { return posted_; }
  std::uint64_t faults() const {
    return injected_;
  }  // operations that were dropped, torn, delayed, reordered or failed

 private:
  struct Held {
    Operation* op;
    TimePoint until;
    bool forward;  // post it then; otherwise it fails with kDeadline then
  };
  struct Torn {
    Operation* original;
    Operation part;
  };

  bool hit(unsigned chance);
  void forward(Operation& op);
  void finished(Operation& op);
  void arm();

  std::unique_ptr<Connection> inner_;
  const Faults faults_;
  std::mt19937_64 random_;
  UniqueFd epoll_;
  UniqueFd timer_;

  std::list<Held> held_;
  std::list<Torn> torn_;
  std::vector<Operation*> reordering_;  // under way, to be held back when completed
  std::vector<Operation*> late_;        // completed, for the poll() after next
  std::vector<Operation*> ready_;       // completed, for the next poll()
  std::vector<Operation*> inner_done_;
  std::uint64_t posted_ = 0;
  std::uint64_t injected_ = 0;
};

}  // namespace rmemfs
