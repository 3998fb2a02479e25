// Executor: where a suspended coroutine resumes. A lane is one; LoopExecutor is one for tools and tests.
//
// A coroutine that suspends on something another thread finishes remembers Executor::current() and is resumed by
// post(), so it always continues on its own thread ("in its lane"). One that waits only for so long has a Timer there.
#pragma once

#include <condition_variable>
#include <coroutine>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "util/clock.h"
#include "util/mutex.h"
#include "util/result.h"
#include "util/task.h"

namespace rmemfs {

class Executor {
 public:
  virtual ~Executor() = default;
  // Any thread. Resumes `handle` on the executor's thread, later; never inside this call.
  virtual void post(std::coroutine_handle<> handle) = 0;

  // The executor whose thread this is; CHECKs that there is one.
  static Executor& current();

  // Something that is to happen on the executor's thread once `at` has passed. Owned by whoever waits.
  class Timer {
   public:
    virtual ~Timer() = default;
    virtual void expired() = 0;  // after it was taken out; does not resume a coroutine inside the call, but posts it

   private:
    friend class Executor;
    std::multimap<TimePoint, Timer*>::iterator place_;
    bool set_ = false;
  };
  // Its own thread only. A timer is set once at a time; unset() of one that is not set does nothing.
  void set(Timer& timer, TimePoint at);
  void unset(Timer& timer);

 protected:
  // For the executor's loop, which calls run_timers() at least every kTimerTick while has_timers().
  //
  // When the calls come late, the thread did not run (its process was frozen, or there was no processor): what a timer
  // limits may have happened meanwhile and wait to be seen, so timers are held back a while longer.
  bool has_timers() const { return !timers_.empty(); }
  void run_timers(TimePoint now);
  static constexpr std::chrono::milliseconds kTimerTick{50};

  // Makes `executor` (or none) the calling thread's current one; returns the one before.
  static Executor* set_current(Executor* executor);

 private:
  std::multimap<TimePoint, Timer*> timers_;
  FreezeWatch timers_watch_;
  TimePoint timers_held_{};  // no timer expires before
};

// Runs posted coroutines on the thread that calls run(). For tools, tests and helper threads.
class LoopExecutor final : public Executor {
 public:
  LoopExecutor();
  ~LoopExecutor() override;  // restores the executor that was current before
  void post(std::coroutine_handle<> handle) override;

  // Runs until `task` is done and returns its value. Other posted coroutines run too.
  template <typename T>
  T run(Task<T> task) {
    if constexpr (std::is_void_v<T>) {
      bool done = false;
      spawn(finish(std::move(task), done));
      run_until(done);
    } else {
      std::optional<T> value;
      bool done = false;
      spawn(finish(std::move(task), value, done));
      run_until(done);
      return std::move(*value);
    }
  }

  // Called between coroutines when there is nothing to run, for at most `timeout`; a test hangs its polling here.
  std::function<void()> on_idle;

 private:
  static Task<void> finish(Task<void> task, bool& done) {
    co_await std::move(task);
    done = true;
  }
  template <typename T>
  static Task<void> finish(Task<T> task, std::optional<T>& value, bool& done) {
    value.emplace(co_await std::move(task));
    done = true;
  }
  void run_until(const bool& done);

  Executor* const previous_;
  std::mutex mutex_;
  std::condition_variable wakeup_;
  std::deque<std::coroutine_handle<>> queue_;  // guarded by mutex_
};

// Suspends the awaiting coroutine and resumes it from its executor's queue: lets others run.
struct Yield {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) const { Executor::current().post(h); }
  void await_resume() const noexcept {}
};

// Suspended coroutines waiting for something. Any thread may wake; each resumes on its own executor. FIFO.
// A waiter that must not wait for ever gives a deadline; expire() (called by whoever keeps time) resumes late ones with
// false. Bound: one entry per suspended request, and those are bounded by the kernel's and lanes' limits.
class WaitList {
 public:
  struct Waiter {
    WaitList& list;
    TimePoint deadline;
    std::function<bool()> ready;  // called under the list's lock before suspending: true means no wait is needed
    Executor* executor = nullptr;
    std::coroutine_handle<> handle = nullptr;
    bool woken = true;

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> h);
    bool await_resume() const noexcept { return woken; }  // false: the deadline passed
  };

  // co_await list.wait(deadline, condition): true when woken or the condition held at once.
  Waiter wait(TimePoint deadline, std::function<bool()> ready = {}) { return {*this, deadline, std::move(ready)}; }
  std::size_t wake(std::size_t count = SIZE_MAX);  // number woken
  std::size_t expire(TimePoint now);
  std::size_t size() const;

 private:
  mutable Mutex mutex_{LockRank::kWaitList};
  std::deque<Waiter*> waiters_;
};

// Helper threads for what may block (fdatasync, RPCs, RocksDB). The awaiting coroutine resumes on its own executor.
class BlockingPool {
 public:
  explicit BlockingPool(std::size_t threads);
  ~BlockingPool();  // runs what is queued, then joins

  // co_await pool.run([&] { ...; return result; });
  template <typename Function>
  auto run(Function function);

  // Queues work that nobody waits for.
  void submit(std::function<void()> work);

 private:
  template <typename Function, typename R>
  struct Awaiter {
    BlockingPool& pool;
    Function function;
    std::optional<R> result{};
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) {
      Executor& executor = Executor::current();
      pool.submit([this, h, &executor] {
        result.emplace(function());
        executor.post(h);
      });
    }
    R await_resume() { return std::move(*result); }
  };
  void work();

  std::mutex mutex_;
  std::condition_variable wakeup_;
  std::deque<std::function<void()>> queue_;  // guarded by mutex_
  bool stopping_ = false;                    // guarded by mutex_
  std::vector<std::jthread> threads_;
};

template <typename Function>
auto BlockingPool::run(Function function) {
  using R = std::invoke_result_t<Function>;
  return Awaiter<Function, R>{*this, std::move(function)};
}

}  // namespace rmemfs
