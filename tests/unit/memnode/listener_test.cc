// The listener with the real targets and the real control plane behind it.
#include "memnode/listener.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <functional>
#include <random>
#include <thread>

#include "control/unix_socket.h"
#include "memnode/memory_node.h"
#include "tests/unit/memnode/fixture.h"

namespace rmemfs::test {
namespace {

long elapsed_ms(TimePoint start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(MonoClock::now() - start).count();
}

bool within_ms(long limit, const std::function<bool()>& condition) {
  const TimePoint start = MonoClock::now();
  while (!condition()) {
    if (elapsed_ms(start) > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

struct World {
  ShmDirectory directory;
  std::unique_ptr<Pool> pool = open_pool(pool_at("", 4 << 20));
  MemoryNode node{*pool};
  std::unique_ptr<Target> tcp, shm;
  std::unique_ptr<NodeServer> control;
  std::unique_ptr<Listener> listener;

  explicit World(std::uint32_t first_bytes_timeout_ms = 5000, std::size_t max_control = 1024) {
    tcp = std::move(*Target::make_tcp(node, {}));
    shm = std::move(*Target::make_shm(node, {}));
    node.set_targets({tcp.get(), shm.get()});
    control = std::move(*NodeServer::start(node));
    Listener::Options options;
    options.addresses = {"unix:" + socket_path(), "tcp://127.0.0.1:0"};
    options.first_bytes_timeout_ms = first_bytes_timeout_ms;
    options.max_control = max_control;
    auto started = Listener::start(options, {tcp.get(), shm.get(), control.get()});
    BOOST_REQUIRE_MESSAGE(started.ok(), (started.ok() ? "" : started.error().message()));
    listener = std::move(*started);
  }
  std::string socket_path() const { return directory / "node.sock"; }
  std::string tcp_address() const { return listener->addresses()[1]; }

  UniqueFd connect_unix_stream() const {
    auto stream = connect_unix(*SocketPath::open(socket_path()));
    BOOST_REQUIRE(stream.ok());
    return std::move(*stream);
  }
  UniqueFd connect_tcp() const {
    const std::string address = tcp_address();
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    name.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    UniqueFd stream(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    BOOST_REQUIRE(::connect(stream.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
    return stream;
  }
  bool answers(const std::string& address, std::uint32_t timeout_ms = 5000) const {
    auto client = NodeClient::make(address);
    return client.ok() && (*client)->describe(timeout_ms).ok();
  }
};

bool closed_by_peer(const UniqueFd& stream) {
  char byte;
  const ssize_t got = ::recv(stream.get(), &byte, 1, MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno == ECONNRESET);
}

void say(const UniqueFd& stream, std::string_view bytes) {
  BOOST_REQUIRE(::send(stream.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
}

void check_refused(const Listener::Options& options, Errc code) {
  const auto listener = Listener::start(options, {});
  BOOST_REQUIRE(!listener.ok());
  BOOST_TEST(name(listener.error().code) == name(code));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(listener)

BOOST_AUTO_TEST_CASE(every_plane_is_reached_over_one_socket) {
  World world;
  BOOST_TEST(world.answers("unix:" + world.socket_path()));
  BOOST_TEST(world.answers(world.tcp_address()));
  auto client = NodeClient::make("shm:" + world.socket_path());
  BOOST_REQUIRE(client.ok());
  const auto who = identity();
  const auto lease = (*client)->lease(who, 65536, 65536, 1, 5000);
  BOOST_REQUIRE(lease.ok());
  const RemoteRegion region{lease->id, lease->generation, lease->key, lease->length_bytes, lease->address, 0, {}};
  for (const std::string& address : {"shm:" + world.socket_path(), world.tcp_address()}) {
    BOOST_TEST_CONTEXT(address) {
      ConnectOptions options;
      options.session = {who.uuid, who.epoch, 0};
      options.file_system_key = who.key;
      const auto parsed = NodeAddress::parse(address);
      BOOST_REQUIRE(parsed.ok());
      auto connection = make_connection(*parsed, options);
      BOOST_REQUIRE(connection.ok());
      std::vector<std::byte> buffer(4096, std::byte{0x3c});
      Operation write;
      write.kind = OperationKind::kWrite;
      write.region = &region;
      write.buffer = buffer.data();
      write.length_bytes = buffer.size();
      write.deadline = deadline_after_ms(5000);
      bool done = (*connection)->post(write) == Posted::kCompleted;
      (*connection)->submit();
      BOOST_TEST(within_ms(6000, [&] {
        std::vector<Operation*> completed;
        if (!done) (*connection)->poll(completed);
        return done = done || !completed.empty();
      }));
      BOOST_TEST(write.ok);
      BOOST_TEST((world.pool->bytes()[lease->address] == std::byte{0x3c}));
      world.pool->bytes()[lease->address] = std::byte{0};
    }
  }
}

BOOST_AUTO_TEST_CASE(what_is_no_plane_of_ours_is_closed_at_once) {
  World world;
  for (const std::string_view bytes :
       {"GET / HTTP/1.1\r\n", "X", "RMEMTCP2", "RMEMX", "PRI * HX", "\0\0\0\0\0\0\0\0"}) {
    const UniqueFd stream = world.connect_tcp();
    say(stream, bytes.empty() ? std::string_view("\0", 1) : bytes);
    BOOST_TEST(within_ms(2000, [&] { return closed_by_peer(stream); }));
  }
  // Shared memory cannot be had over TCP.
  const UniqueFd stream = world.connect_tcp();
  say(stream, kShmMagic);
  BOOST_TEST(within_ms(2000, [&] { return closed_by_peer(stream); }));
  BOOST_TEST(world.answers(world.tcp_address()));
}

BOOST_AUTO_TEST_CASE(a_stream_that_says_nothing_or_half_a_magic_is_closed_after_the_timeout) {
  World world(200);
  const UniqueFd silent = world.connect_tcp(), half = world.connect_unix_stream();
  say(half, "RMEM");
  BOOST_TEST(within_ms(1000, [&] { return world.listener->silent_streams() == 2; }));
  const TimePoint start = MonoClock::now();
  BOOST_TEST(within_ms(3000, [&] { return closed_by_peer(silent) && closed_by_peer(half); }));
  BOOST_TEST(elapsed_ms(start) < 2000);
  BOOST_TEST(within_ms(1000, [&] { return world.listener->silent_streams() == 0; }));
}

BOOST_AUTO_TEST_CASE(a_magic_in_pieces_is_understood) {
  World world;
  const UniqueFd stream = world.connect_tcp();
  for (const char c : std::string_view("RMEMTCP1")) {
    say(stream, std::string_view(&c, 1));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  BOOST_TEST(within_ms(2000, [&] { return world.tcp->connections() == 1; }));
  BOOST_TEST(world.listener->silent_streams() == 0u);
}

BOOST_AUTO_TEST_CASE(two_hundred_half_open_streams_delay_nobody) {
  World world;
  std::vector<UniqueFd> streams;
  for (int i = 0; i < 200; ++i) {
    streams.push_back(world.connect_tcp());
    if (i % 2 == 0) say(streams.back(), "RMEMTCP");
  }
  const TimePoint start = MonoClock::now();
  BOOST_TEST(world.answers(world.tcp_address()));
  BOOST_TEST(world.answers("unix:" + world.socket_path()));
  BOOST_TEST(elapsed_ms(start) < 2000);
}

BOOST_AUTO_TEST_CASE(silent_streams_are_bounded_and_the_oldest_makes_room) {
  World world;
  std::vector<UniqueFd> streams;
  for (int i = 0; i < 400; ++i) streams.push_back(world.connect_tcp());
  BOOST_TEST(within_ms(2000, [&] { return closed_by_peer(streams[100]); }));
  BOOST_TEST(world.listener->silent_streams() <= 256u);
  BOOST_TEST(!closed_by_peer(streams.back()));
  BOOST_TEST(world.answers(world.tcp_address()));
}

BOOST_AUTO_TEST_CASE(control_streams_are_bounded_and_counted_down_when_they_go) {
  World world(5000, 8);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<NodeClient>> clients;
    for (int i = 0; i < 8; ++i) {
      clients.push_back(std::move(*NodeClient::make(world.tcp_address())));
      BOOST_TEST(within_ms(3000, [&] { return clients.back()->heartbeat(1000).ok(); }));
    }
    BOOST_TEST(!world.answers(world.tcp_address(), 500));
  }
}

BOOST_AUTO_TEST_CASE(random_and_truncated_bytes_crash_nothing) {
  const unsigned seed = std::random_device{}();
  BOOST_TEST_MESSAGE("seed " << seed);
  std::mt19937 random(seed);
  World world;
  for (int i = 0; i < 300; ++i) {
    const UniqueFd stream = i % 2 == 0 ? world.connect_tcp() : world.connect_unix_stream();
    static constexpr std::string_view kHeads[] = {"", "RMEMTCP1", "RMEMSHM1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"};
    std::string bytes(kHeads[random() % std::size(kHeads)]);
    const std::size_t size = random() % 300;
    for (std::size_t j = 0; j < size; ++j) bytes += static_cast<char>(random());
    bytes.resize(random() % (bytes.size() + 1));
    if (!bytes.empty() && ::send(stream.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) continue;
  }
  BOOST_TEST(world.answers(world.tcp_address()));
  BOOST_TEST(world.answers("unix:" + world.socket_path()));
}

BOOST_AUTO_TEST_CASE(out_of_descriptors_is_survived) {
  World world;
  rlimit before;
  BOOST_REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  std::vector<UniqueFd> streams;
  for (int i = 0; i < 40; ++i) streams.push_back(world.connect_unix_stream());
  BOOST_TEST(within_ms(1000, [&] { return world.listener->silent_streams() == 40; }));
  // No descriptor beyond the highest in use now.
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(::dup(0));
  ::close(static_cast<int>(tight.rlim_cur));
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    tight.rlim_cur = std::max<rlim_t>(tight.rlim_cur, std::stoul(entry.path().filename().string()) + 1);
  }
  const UniqueFd spare = world.connect_unix_stream();  // made before the limit, its peer is not accepted yet perhaps
  BOOST_REQUIRE(::setrlimit(RLIMIT_NOFILE, &tight) == 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  BOOST_REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  BOOST_TEST(world.answers(world.tcp_address()));
}

BOOST_AUTO_TEST_CASE(addresses_that_cannot_be_are_refused) {
  ShmDirectory directory;
  const auto only = [](const std::string& address) {
    Listener::Options options;
    options.addresses = {address};
    return options;
  };
  for (const char* address : {"", "foo", "unix:", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:x",
                              "tcp://127.0.0.1:70000", "tcp://:80", "tcp://::1:80", "shm:/x"}) {
    BOOST_TEST_CONTEXT(address) check_refused(only(address), Errc::kInvalid);
  }
  check_refused(only("tcp://0.0.0.0:0"), Errc::kInvalid);
  check_refused(only("tcp://[::]:0"), Errc::kInvalid);
  Listener::Options open = only("tcp://0.0.0.0:0");
  open.insecure = true;
  BOOST_TEST(Listener::start(open, {}).ok());
  check_refused(only("unix:" + (directory / "none/s")), Errc::kNotFound);

  const auto first = Listener::start(only("tcp://127.0.0.1:0"), {});
  BOOST_REQUIRE(first.ok());
  check_refused(only((*first)->addresses()[0]), Errc::kBusy);
  const auto second = Listener::start(only("unix:" + (directory / "s")), {});
  BOOST_REQUIRE(second.ok());
  check_refused(only("unix:" + (directory / "s")), Errc::kLocked);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
