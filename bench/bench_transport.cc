// Cost of one operation over shm against a memcpy of the same bytes, and over tcp against a bare ping-pong of the same
// sizes over loopback with the same waiting: both sides spinning, or both blocking.
//
// The two of a pair are measured in short batches, in the order ABBA and then BAAB (who comes second finds warmer
// caches). A round is some of those, and its ratio that of the two sides' best batches, so that being interrupted does
// not count; the median of the rounds' ratios is judged. The two sides of tcp are kept on two processors where there
// are two.
//
// usage: bench_transport [ROUNDS]     21 by default
// Prints one JSON object per line: {"name", "value", "unit", "ratio", "limit", "ok"}. Exits 1 when a limit is not kept.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "transport/connection.h"
#include "transport/target.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kRegionBytes = 64 << 20;

// One region in a memfd whose first page holds the epoch word.
class OneRegion final : public RegionSource {
 public:
  OneRegion() : file_(::memfd_create("bench pool", MFD_CLOEXEC)) {
    CHECK(::ftruncate(file_.get(), kPage + kRegionBytes) == 0);
    data_ = map();
    std::memset(data_, 1, kPage + kRegionBytes);
    std::memset(data_, 0, kPage);
    auto region = std::make_shared<Region>();
    region->memory = {data_ + kPage, kRegionBytes};
    region->pool_offset = kPage;
    region_ = std::move(region);
  }
  std::byte* map() {
    void* const data =
        ::mmap(nullptr, kPage + kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file_.get(), 0);
    CHECK(data != MAP_FAILED);
    return static_cast<std::byte*>(data);
  }
  RemoteRegion remote() const {
    RemoteRegion remote;
    remote.id = RegionId(1);
    remote.generation = Generation(1);
    remote.length_bytes = kRegionBytes;
    return remote;
  }
  Result<void> admit(const SessionId&, const AccessKey&) override { return success(); }
  Result<std::shared_ptr<TargetRegion>> open_region(const Uuid&, RegionId, Generation, const AccessKey&) override {
    return std::shared_ptr<TargetRegion>(region_);
  }
  Result<int> pool_fd(std::uint64_t& size_bytes) override {
    size_bytes = kPage + kRegionBytes;
    return file_.get();
  }
  Result<std::uint64_t> epoch_word_offset(const Uuid&) override { return std::uint64_t{0}; }

 private:
  struct Region final : TargetRegion {
    bool revoked() const override { return revoked_.load(std::memory_order_acquire); }
    Result<void> persist(std::uint64_t, std::uint64_t) override { return success(); }
    std::atomic<bool> revoked_{false};
  };
  UniqueFd file_;
  std::byte* data_;
  std::shared_ptr<TargetRegion> region_;
};

void stay_on(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int count = static_cast<int>(std::thread::hardware_concurrency());
  CPU_SET(processor % std::max(count, 1), &set);
  ::sched_setaffinity(0, sizeof set, &set);
}

template <typename Work>
double seconds_of(const Work& work) {
  const TimePoint begin = MonoClock::now();
  work();
  return std::chrono::duration<double>(MonoClock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// `ours` and `bare` do a batch and return its seconds.
struct Pair {
  double ours;   // seconds of a round's best batch, median of the rounds
  double ratio;  // ours / bare, median of the rounds
};
Pair compare(int rounds, const std::function<double()>& ours, const std::function<double()>& bare, int turns) {
  std::vector<double> times, ratios;
  ours();
  bare();
  for (int i = 0; i < rounds; ++i) {
    double best_ours = 1e9, best_bare = 1e9;
    for (int turn = 0; turn < turns; ++turn) {
      for (const bool mine : {true, false, false, true}) {
        const bool is_ours = mine == (turn % 2 == 0);
        double& best = is_ours ? best_ours : best_bare;
        best = std::min(best, is_ours ? ours() : bare());
      }
    }
    times.push_back(best_ours);
    ratios.push_back(best_ours / best_bare);
  }
  return {median(times), median(ratios)};
}

bool report(const char* name, double value, const char* unit, double ratio, const char* limit, bool ok) {
  std::printf("{\"name\": \"%s\", \"value\": %.4g, \"unit\": \"%s\", \"ratio\": %.3f, \"limit\": \"%s\", \"ok\": %s}\n",
              name, value, unit, ratio, limit, ok ? "true" : "false");
  std::fflush(stdout);
  return ok;
}

// Listens once, gives what connects to the target, and is gone when the connection is made.
void serve_one(int listener, Target& target) {
  UniqueFd stream(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  CHECK(stream.valid());
  target.adopt(std::move(stream));
}

void run(Connection& connection, Operation& op, bool spin, std::vector<Operation*>& done) {
  if (connection.post(op) == Posted::kPending) {
    connection.submit();
    for (done.clear(); done.empty(); connection.poll(done)) {
      if (spin) continue;
      pollfd polled{connection.event_fd(), POLLIN, 0};
      ::poll(&polled, 1, -1);
    }
  }
  CHECK(op.ok);
}

std::vector<std::uint64_t> offsets(std::size_t count, std::uint64_t size) {
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> list(count);
  for (auto& offset : list) offset = random() % (kRegionBytes / size) * size;
  return list;
}

bool bench_shm(int rounds) {
  OneRegion regions;
  auto target = Target::make_shm(regions, {.threads = 1});
  CHECK(target.ok());
  NodeAddress address;
  address.path = "/tmp/rmemfs-bench-" + std::to_string(::getpid()) + ".sock";
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, address.path.c_str(), address.path.size() + 1);
  CHECK(::bind(listener.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 &&
        ::listen(listener.get(), 1) == 0);
  std::thread acceptor([&] { serve_one(listener.get(), **target); });
  auto connection = make_connection(address, {});
  CHECK(connection.ok());
  const RemoteRegion remote = regions.remote();
  std::vector<std::byte> buffer(1 << 20);
  std::vector<Operation*> done;
  Operation op;
  op.region = &remote;
  op.buffer = buffer.data();
  // Touches every page, so that neither side pays for page faults.
  op.length_bytes = 1 << 20;
  for (op.offset = 0; op.offset < kRegionBytes; op.offset += op.length_bytes) run(**connection, op, false, done);
  op.kind = OperationKind::kWrite;
  for (op.offset = 0; op.offset < kRegionBytes; op.offset += op.length_bytes) run(**connection, op, false, done);
  acceptor.join();
  ::unlink(address.path.c_str());

  std::byte* const plain = regions.map() + kPage;
  bool ok = true;
  const auto small = offsets(1000, 4096);
  const auto large = offsets(8, 1 << 20);
  const auto operate = [&](OperationKind kind, const std::vector<std::uint64_t>& where, std::size_t size) {
    op.kind = kind;
    op.length_bytes = size;
    for (const std::uint64_t offset : where) {
      op.offset = offset;
      CHECK((*connection)->post(op) == Posted::kCompleted && op.ok);
    }
  };
  // Through a pointer that the compiler does not see through, as the copies of a real program go.
  void* (*volatile copy)(void*, const void*, std::size_t) = std::memcpy;
  const auto copy_out = [&](const std::vector<std::uint64_t>& where, std::size_t size) {
    for (const std::uint64_t offset : where) copy(buffer.data(), plain + offset, size);
  };
  const auto copy_in = [&](const std::vector<std::uint64_t>& where, std::size_t size) {
    for (const std::uint64_t offset : where) copy(plain + offset, buffer.data(), size);
  };
  const auto count = [](const auto& list) { return static_cast<double>(list.size()); };

  Pair pair = compare(
      rounds, [&] { return seconds_of([&] { operate(OperationKind::kRead, small, 4096); }); },
      [&] { return seconds_of([&] { copy_out(small, 4096); }); }, 6);
  ok &=
      report("shm read 4 KiB / memcpy", pair.ours / count(small) * 1e9, "ns", pair.ratio, "<= 1.3", pair.ratio <= 1.3);
  pair = compare(
      rounds, [&] { return seconds_of([&] { operate(OperationKind::kWrite, small, 4096); }); },
      [&] { return seconds_of([&] { copy_in(small, 4096); }); }, 6);
  ok &=
      report("shm write 4 KiB / memcpy", pair.ours / count(small) * 1e9, "ns", pair.ratio, "<= 1.3", pair.ratio <= 1.3);
  pair = compare(
      rounds, [&] { return seconds_of([&] { operate(OperationKind::kRead, large, 1 << 20); }); },
      [&] { return seconds_of([&] { copy_out(large, 1 << 20); }); }, 6);
  ok &= report("shm read 1 MiB, bandwidth / memcpy", count(large) / 1024 / pair.ours, "GiB/s", 1 / pair.ratio, ">= 0.9",
               1 / pair.ratio >= 0.9);
  pair = compare(
      rounds, [&] { return seconds_of([&] { operate(OperationKind::kWrite, large, 1 << 20); }); },
      [&] { return seconds_of([&] { copy_in(large, 1 << 20); }); }, 6);
  ok &= report("shm write 1 MiB, bandwidth / memcpy", count(large) / 1024 / pair.ours, "GiB/s", 1 / pair.ratio,
               ">= 0.9", 1 / pair.ratio >= 0.9);
  return ok;
}

UniqueFd listen_tcp(std::uint16_t& port) {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof name;
  CHECK(::bind(listener.get(), reinterpret_cast<sockaddr*>(&name), size) == 0 && ::listen(listener.get(), 1) == 0);
  CHECK(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &size) == 0);
  port = ntohs(name.sin_port);
  return listener;
}

// Receives `size` bytes; false at the end of the stream.
bool receive(int fd, std::byte* to, std::size_t size, bool spin) {
  for (std::size_t got = 0; got < size;) {
    const ssize_t n = ::recv(fd, to + got, size - got, spin ? MSG_DONTWAIT : 0);
    if (n > 0)
      got += static_cast<std::size_t>(n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
      return false;
  }
  return true;
}

// The least that two threads can do: a request of 64 bytes (and 4096), a reply of 40 (and 4096).
class BarePingPong {
 public:
  BarePingPong(std::size_t request, std::size_t reply, bool spin) : out_(request), in_(reply), spin_(spin) {
    std::uint16_t port;
    const UniqueFd listener = listen_tcp(port);
    client_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(::connect(client_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
    server_ = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const int one = 1;
    for (const UniqueFd* fd : {&client_, &server_}) {
      ::setsockopt(fd->get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    echo_ = std::thread([this] {
      stay_on(1);
      std::vector<std::byte> request_bytes(out_.size()), reply_bytes(in_.size());
      for (bool last = true;;) {
        // Between two batches even the spinning echo sleeps: the other of the pair needs the processor.
        pollfd polled{server_.get(), POLLIN, 0};
        if (spin_ && last) ::poll(&polled, 1, -1);
        if (!receive(server_.get(), request_bytes.data(), request_bytes.size(), spin_)) return;
        last = request_bytes[0] == std::byte{1};
        (void)!::send(server_.get(), reply_bytes.data(), reply_bytes.size(), MSG_NOSIGNAL);
      }
    });
  }
  ~BarePingPong() {
    ::shutdown(client_.get(), SHUT_RDWR);
    echo_.join();
  }
  double run(int count) {
    exchange(false);
    return seconds_of([&] {
      for (int i = 1; i <= count; ++i) exchange(i == count);
    });
  }

 private:
  void exchange(bool last) {
    out_[0] = std::byte{last};
    CHECK(::send(client_.get(), out_.data(), out_.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(out_.size()));
    CHECK(receive(client_.get(), in_.data(), in_.size(), spin_));
  }
  std::vector<std::byte> out_, in_;
  const bool spin_;
  UniqueFd client_, server_;
  std::thread echo_;
};

bool bench_tcp(int rounds, bool spin) {
  OneRegion regions;
  stay_on(1);  // the target's thread inherits it
  auto target = Target::make_tcp(regions, {.threads = 1, .spin_us = spin ? 200u : 0u});
  stay_on(0);
  CHECK(target.ok());
  NodeAddress address;
  address.transport = TransportKind::kTcp;
  address.host = "127.0.0.1";
  const UniqueFd listener = listen_tcp(address.port);
  std::thread acceptor([&] { serve_one(listener.get(), **target); });
  auto connection = make_connection(address, {});
  CHECK(connection.ok());
  const RemoteRegion remote = regions.remote();
  std::vector<std::byte> buffer(4096);
  std::vector<Operation*> done;
  Operation op;
  op.region = &remote;
  op.buffer = buffer.data();
  op.length_bytes = buffer.size();
  run(**connection, op, false, done);
  acceptor.join();

  // Short batches, one of which is likely to find both processors free; the first operation of a batch, which may have
  // to wake the node, is not timed.
  const int count = 50;
  const auto where = offsets(static_cast<std::size_t>(count), 4096);
  const auto operate = [&](OperationKind kind) {
    op.kind = kind;
    op.deadline = deadline_after_ms(10000);
    run(**connection, op, spin, done);
    const double seconds = seconds_of([&] {
      for (const std::uint64_t offset : where) {
        op.offset = offset;
        run(**connection, op, spin, done);
      }
    });
    if (spin)
      std::this_thread::sleep_for(std::chrono::microseconds(300));  // the target falls asleep before the other's turn
    return seconds;
  };
  bool ok = true;
  for (const OperationKind kind : {OperationKind::kRead, OperationKind::kWrite}) {
    const bool read = kind == OperationKind::kRead;
    BarePingPong bare(read ? 64 : 64 + 4096, read ? 40 + 4096 : 40, spin);
    const Pair pair = compare(
        rounds, [&] { return operate(kind); }, [&] { return bare.run(count); }, spin ? 20 : 6);
    const std::string name = std::string("tcp ") + (read ? "read" : "write") + " 4 KiB, " +
                             (spin ? "spinning" : "blocking") + " / bare ping-pong";
    ok &= report(name.c_str(), pair.ours / count * 1e6, "us", pair.ratio, "<= 1.3", pair.ratio <= 1.3);
  }
  return ok;
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 21;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: bench_transport [ROUNDS]\n");
    return 2;
  }
  bool ok = rmemfs::bench_shm(rounds);
  ok &= rmemfs::bench_tcp(rounds, true);
  ok &= rmemfs::bench_tcp(rounds, false);
  return ok ? 0 : 1;
}
