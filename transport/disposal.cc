#include "transport/disposal.h"

#include <utility>

namespace rmemfs {

void Disposal::finish() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Disposal::take(std::function<void()> destroy) {
  std::lock_guard lock(mutex_);
  waiting_.push_back(std::move(destroy));
  if (running_ + waiting_.size() > threads_.size() && threads_.size() < most_threads_) {
    threads_.emplace_back([this] { run(); });
  }
  changed_.notify_one();
}

std::size_t Disposal::pending() const {
  std::lock_guard lock(mutex_);
  return waiting_.size() + running_;
}

void Disposal::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    std::function<void()> destroy = std::move(waiting_.front());
    waiting_.pop_front();
    ++running_;
    lock.unlock();
    destroy();
    destroy = nullptr;  // what it holds goes here, and not under the lock
    lock.lock();
    --running_;
  }
}

}  // namespace rmemfs
