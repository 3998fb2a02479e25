// A lane: one thread, pinned to one core, that reads FUSE requests from its own clone of /dev/fuse, runs their
// coroutines, drives its own connections to the memory nodes, and replies. No request is handed to another thread.
//
// What may block it: nothing but its own sleep (epoll on the FUSE descriptor, the connections' event descriptors and an
// eventfd that other threads post through) and reads of the local disk by the metadata store.
//
// Waiting. With few cores and nothing outstanding a lane sleeps as soon as the kernel has no request: the kernel then
// wakes the lane on the core of the process that asked. With operations outstanding on a node that answers soon, or
// with many cores, it first spins for a bounded time that follows what the last answers took (`PollMode::kAdaptive`).
//
// Life: start() -> serving -> stop_reading() (or the kernel ends the connection) -> stop() once active() is 0 in every
// lane -> join(). Members are the lane thread's own unless said otherwise.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "fs/connection_set.h"
#include "fs/request_buffer.h"
#include "util/clock.h"
#include "util/executor.h"
#include "util/mutex.h"
#include "util/unique_fd.h"

struct fuse_session;
struct iovec;

namespace rmemfs {

enum class PollMode : std::uint8_t { kOff, kFixed, kAdaptive };

struct LaneOptions {
  std::uint32_t index = 0;
  std::uint32_t lanes = 1;
  int cpu = -1;        // core to pin to; -1: none
  unsigned cores = 1;  // of the machine
  PollMode poll = PollMode::kAdaptive;
  std::uint32_t spin_us = 0;   // kFixed
  std::uint32_t buffers = 64;  // requests in flight at most
  std::shared_ptr<LocalMemory> local_memory;
};

class FuseLane final : public Executor {
 public:
  // `device`: non-blocking; requests read from it are answered on it.
  FuseLane(const LaneOptions& options, fuse_session* session, UniqueFd device, ConnectionFactory factory);
  ~FuseLane() override;

  // The lane whose thread this is; CHECKs that there is one.
  static FuseLane& current();

  // Set before start(). Called on the lane's thread: after each of the first requests until it returns true; and once
  // when the kernel has ended the connection (unmounted or aborted).
  std::function<bool()> on_request;
  std::function<void()> on_ended;

  void start();
  void stop_reading();  // any thread: no new requests
  void stop();          // any thread: ends the thread; what is still suspended is abandoned
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  // Requests that are not answered yet. Any thread.
  std::size_t active() const { return active_.load(std::memory_order_acquire); }

  void post(std::coroutine_handle<> handle) override;

  ConnectionSet& connections() { return connections_; }
  const ConnectionSet& connections() const { return connections_; }

  // During a request's dispatch: its buffer (holding it keeps the request's bytes) and its FUSE number.
  BufferRef request_buffer() const { return buffer_; }
  std::uint64_t request_number() const { return request_number_; }
  // The request is the kernel's TMPFILE, which libfuse 3.14 does not know: it is given to it as a CREATE, which has the
  // same form and the same reply.
  bool temporary_file_request() const { return temporary_file_request_; }

  // The session's I/O: replies go to the device that the request came from.
  // The reply to INIT gets the flag FUSE_HANDLE_KILLPRIV_V2 added, which libfuse 3.14 cannot be asked for: the kernel
  // then says in each request whether set-user-ID bits are to be cleared, and remembers that a file has no
  // capabilities.
  static long write_reply(int fd, iovec* parts, int count, void* session);

 private:
  enum class Serve { kServed, kNothing, kStalled };
  void run();
  Serve serve();
  bool run_posted();  // true if anything ran
  bool spin();        // true if there is something to do
  void sleep(bool stalled);
  void watch(int fd, std::uint64_t tag);
  void wake();

  const LaneOptions options_;
  fuse_session* const session_;
  UniqueFd device_, epoll_, event_;
  RequestBuffers buffers_;  // outlive the connections, whose operations are on them
  ConnectionSet connections_;
  BufferRef buffer_;
  std::uint64_t request_number_ = 0;
  bool temporary_file_request_ = false;
  bool offers_kill_priv_ = false;  // during INIT: the kernel knows FUSE_HANDLE_KILLPRIV_V2
  bool device_watched_ = false;
  bool ended_ = false;
  bool announced_ = false;
  double wait_us_ = 20;                         // mean time that outstanding operations made us wait
  TimePoint waiting_since_{};                   // when the present wait began; zero: not waiting
  std::vector<std::coroutine_handle<>> local_;  // posted by this lane
  std::vector<std::coroutine_handle<>> running_;

  std::atomic<std::size_t> active_{0};
  std::atomic<bool> stop_reading_{false}, stop_{false};
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> posted_flag_{false};  // remote_ is not empty
  Mutex remote_mutex_{LockRank::kExecutor};
  std::vector<std::coroutine_handle<>> remote_;  // posted by other threads; guarded by remote_mutex_
  std::thread thread_;
};

}  // namespace rmemfs
