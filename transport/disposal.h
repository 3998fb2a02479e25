// Disposal: destroys what may take long to destroy, on threads of its own, so that nobody waits for it.
//
// take() never blocks and never refuses: what is to go has to go somewhere. Whoever makes such things asks full() first
// and makes no more while it is, which bounds what is kept. Threads are started when they are needed, at most
// `most_threads`, and stay until the end.
// Thread-safe. take() and full() hold a lock of its own for a moment.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace rmemfs {

class Disposal {
 public:
  Disposal(std::size_t most_threads, std::size_t most_pending)
      : most_threads_(most_threads), most_pending_(most_pending) {}
  ~Disposal() { finish(); }
  Disposal(const Disposal&) = delete;
  Disposal& operator=(const Disposal&) = delete;

  void take(std::function<void()> destroy);  // runs it later, once, on another thread
  bool full() const { return pending() >= most_pending_; }
  std::size_t pending() const;  // taken, and not at its end
  void finish();                // blocks until all is destroyed; nothing is taken afterwards

 private:
  void run();

  // Constant after construction.
  const std::size_t most_threads_, most_pending_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<std::function<void()>> waiting_;
  std::size_t running_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace rmemfs
