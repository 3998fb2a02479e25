// Task<T>: a coroutine that starts when awaited and resumes its awaiter when done, on the awaiter's own thread.
//
// A task that finishes without suspending does not suspend its awaiter either, so a loop over such tasks needs no more
// stack than one of them: the compiler's tail calls, which sanitizer builds do not have, are not relied on.
//
// T1  A task finishes on the thread on which it was awaited. It may run elsewhere meanwhile (ResumeOn), but comes back
//     before it ends. Otherwise it could end while its awaiter is still looking whether it has, and nobody would go on.
//     Usually nothing has to be done for it: what suspends a coroutine resumes it by its executor (util/executor.h).
//     Checked when a task ends. What goes to another thread and ends there is Detached from its first line on.
//
// Rules of this house for coroutines:
//   - no Mutex is held across co_await;
//   - parameters are taken by value or refer to something that outlives the coroutine;
//   - a temporary with a destructor is not written inside a co_await expression's argument list when it is an aggregate
//     initializer (g++ 12 may destroy it twice): name it first;
//   - a coroutine that waits says for how long.
// Exceptions do not leave our code: one that escapes a coroutine stops the program.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "util/check.h"

namespace rmemfs {

template <typename T>
class Task;

namespace task_detail {

// A name of the calling thread. Not inlined: a compiler may keep a thread-local's address over a suspension.
[[gnu::noinline]] inline const void* this_thread() {
  static thread_local char mark;
  const void* volatile address = &mark;
  return address;
}

struct PromiseBase {
  std::coroutine_handle<> continuation = nullptr;  // set only once the task has suspended
  const void* awaited_on = nullptr;                // T1
  std::suspend_always initial_suspend() noexcept { return {}; }
  struct FinalAwaiter {
    bool await_ready() noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> h) noexcept {
      CHECK(h.promise().awaited_on == this_thread());  // T1
      const std::coroutine_handle<> awaiter = h.promise().continuation;
      return awaiter ? awaiter : std::noop_coroutine();
    }
    void await_resume() noexcept {}
  };
  FinalAwaiter final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { std::terminate(); }
};

template <typename T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object() noexcept;
  template <typename U>
  void return_value(U&& v) {
    value.emplace(std::forward<U>(v));
  }
  T take() { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() noexcept {}
  void take() {}
};

}  // namespace task_detail

template <typename T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = task_detail::Promise<T>;
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> awaiter) noexcept {
    handle_.promise().awaited_on = task_detail::this_thread();
    handle_.resume();
    if (handle_.done()) return false;
    handle_.promise().continuation = awaiter;
    return true;
  }
  T await_resume() { return handle_.promise().take(); }

 private:
  friend promise_type;
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

template <typename T>
Task<T> task_detail::Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> task_detail::Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

// Starts a task that nobody awaits; it owns itself and runs until its first suspension before this returns.
struct Detached {
  struct promise_type {
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};
inline Detached spawn(Task<void> task) { co_await std::move(task); }

}  // namespace rmemfs
