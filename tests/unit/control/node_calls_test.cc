// Every call over a real socket, every error by name, and no call that outlives its deadline.
#include <sys/socket.h>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <boost/mpl/vector.hpp>
#include <boost/test/unit_test.hpp>

#include "control/node.grpc.pb.h"
#include "control/protocol.h"
#include "tests/unit/control/test_node.h"
#include "util/clock.h"

namespace rmemfs::test {
namespace {

constexpr std::uint32_t kLong = 20'000;

struct Unix {
  static constexpr bool is_unix = true;
};
struct Tcp {
  static constexpr bool is_unix = false;
};
using Both = boost::mpl::vector<Unix, Tcp>;

struct World {
  explicit World(bool is_unix) : node(service, is_unix ? directory / "node.sock" : ""), client(make(node.address())) {}
  static std::unique_ptr<NodeClient> make(const std::string& address) {
    auto made = NodeClient::make(address);
    BOOST_REQUIRE(made.ok());
    return std::move(*made);
  }
  TemporaryDirectory directory;
  ScriptedService service;
  ServedNode node;
  std::unique_ptr<NodeClient> client;
};

long elapsed_ms(TimePoint start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(MonoClock::now() - start).count();
}

bool same(const LeasedRegion& a, const LeasedRegion& b) {
  return a.id == b.id && a.generation == b.generation && a.key.matches(b.key) && a.length_bytes == b.length_bytes &&
         a.address == b.address && a.rkey == b.rkey && a.durability == b.durability &&
         a.persist_method == b.persist_method && a.tag == b.tag;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(node_client)

BOOST_AUTO_TEST_CASE_TEMPLATE(every_call_carries_its_arguments_and_its_answer, Kind, Both) {
  World world(Kind::is_unix);
  const auto description = world.client->describe(kLong);
  BOOST_REQUIRE_MESSAGE(description.ok(), (description.ok() ? "" : description.error().message()));
  BOOST_TEST(description->protocol_version == kNodeProtocolVersion);
  BOOST_TEST((description->generation == world.service.region.generation));
  BOOST_TEST(description->pool_bytes == 1u << 30);
  BOOST_TEST(description->free_bytes == 1u << 29);
  BOOST_TEST(description->regions == 4u);
  BOOST_TEST(int(description->durability) == 1);
  BOOST_TEST(int(description->persist_method) == 3);
  BOOST_TEST(description->version == "9.9.9");
  BOOST_TEST(description->pid == 4711u);

  const FileSystemIdentity who = some_identity();
  const auto region = world.client->lease(who, 10'000, 4096, 5, kLong);
  BOOST_REQUIRE(region.ok());
  BOOST_TEST(same(*region, world.service.region));
  BOOST_TEST((world.service.last_who.uuid == who.uuid));
  BOOST_TEST(world.service.last_who.key.matches(who.key));
  BOOST_TEST((world.service.last_who.epoch == who.epoch));
  BOOST_TEST(world.service.last_length == 10'000u);
  BOOST_TEST(world.service.last_minimum == 4096u);
  BOOST_TEST(world.service.last_tag == 5u);
  BOOST_TEST(!world.service.last_peer.empty());

  BOOST_TEST(world.client->release(who, RegionId(99), kLong).ok());
  BOOST_TEST(world.service.last_region == 99u);
  const auto list = world.client->list(who, kLong);
  BOOST_REQUIRE(list.ok());
  BOOST_REQUIRE(list->size() == 3u);
  BOOST_TEST(same(list->back(), world.service.region));
  BOOST_TEST(world.client->fence(who, kLong).ok());
  BOOST_TEST(world.client->forget(who, kLong).ok());
  BOOST_TEST(world.service.forgotten == 1);
  const auto generation = world.client->heartbeat(kLong);
  BOOST_REQUIRE(generation.ok());
  BOOST_TEST((*generation == world.service.region.generation));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(every_error_code_survives_the_trip, Kind, Both) {
  World world(Kind::is_unix);
  const FileSystemIdentity who = some_identity();
  for (auto code = static_cast<int>(Errc::kNotFound); code <= static_cast<int>(Errc::kJournalFull); ++code) {
    const auto expected = static_cast<Errc>(code);
    world.service.fails = expected;
    world.service.fails_with = code % 2 == 0 ? "the thing" : "\xff\xfe not UTF-8";
    BOOST_TEST_CONTEXT(name(expected)) {
      const auto describe = world.client->describe(kLong);
      const auto lease = world.client->lease(who, 8192, 4096, 1, kLong);
      const auto release = world.client->release(who, RegionId(1), kLong);
      const auto list = world.client->list(who, kLong);
      const auto fence = world.client->fence(who, kLong);
      const auto forget = world.client->forget(who, kLong);
      const auto heartbeat = world.client->heartbeat(kLong);
      BOOST_TEST((!describe.ok() && describe.error().code == expected));
      BOOST_TEST((!lease.ok() && lease.error().code == expected));
      BOOST_TEST((!release.ok() && release.error().code == expected));
      BOOST_TEST((!list.ok() && list.error().code == expected));
      BOOST_TEST((!fence.ok() && fence.error().code == expected));
      BOOST_TEST((!forget.ok() && forget.error().code == expected));
      BOOST_TEST((!heartbeat.ok() && heartbeat.error().code == expected));
      BOOST_TEST((lease.error().detail.find(world.service.fails_with) != std::string::npos));
      BOOST_TEST((lease.error().detail.find(world.node.address()) != std::string::npos));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_slow_handler_gives_the_deadline, Kind, Both) {
  World world(Kind::is_unix);
  BOOST_REQUIRE(world.client->heartbeat(kLong).ok());
  world.service.delay_ms = 1500;
  const TimePoint start = MonoClock::now();
  const auto late = world.client->heartbeat(200);
  BOOST_TEST((!late.ok() && late.error().code == Errc::kDeadline));
  BOOST_TEST(elapsed_ms(start) < 1200);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_node_that_accepts_and_says_nothing_gives_the_deadline, Kind, Both) {
  World world(Kind::is_unix);
  world.node.freeze();
  const TimePoint start = MonoClock::now();
  const auto late = world.client->describe(300);
  BOOST_TEST((!late.ok() && late.error().code == Errc::kDeadline));
  BOOST_TEST(elapsed_ms(start) < 1500);
  world.node.thaw();
  // The silent stream is given up after 2 s at most, and the next one is served.
  const TimePoint again = MonoClock::now();
  bool answered = false;
  while (!answered && elapsed_ms(again) < 10'000) answered = world.client->describe(1000).ok();
  BOOST_TEST(answered);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(nobody_there_is_told_at_once, Kind, Both) {
  std::string address;
  TemporaryDirectory directory;
  {
    ScriptedService service;
    ServedNode node(service, Kind::is_unix ? directory / "gone.sock" : "");
    address = node.address();
  }
  auto client = NodeClient::make(address);
  BOOST_REQUIRE(client.ok());
  for (int i = 0; i < 3; ++i) {
    const TimePoint start = MonoClock::now();
    const auto answer = (*client)->heartbeat(5000);
    BOOST_TEST((!answer.ok() && answer.error().code == Errc::kUnreachable));
    BOOST_TEST(answer.error().detail ==
               address + (Kind::is_unix ? ": No such file or directory" : ": Connection refused"));
    BOOST_TEST(elapsed_ms(start) < 2000);
  }
}

BOOST_AUTO_TEST_CASE(a_node_that_comes_back_is_seen_within_a_second) {
  TemporaryDirectory directory;
  ScriptedService service;
  const std::string path = directory / "node.sock";
  auto client = NodeClient::make("shm:" + path);
  BOOST_REQUIRE(client.ok());
  for (int round = 0; round < 3; ++round) {
    BOOST_TEST(!(*client)->heartbeat(500).ok());
    ServedNode node(service, path);
    const TimePoint start = MonoClock::now();
    bool answered = false;
    while (!answered && elapsed_ms(start) < 3000) {
      answered = (*client)->heartbeat(500).ok();
      if (!answered) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    BOOST_TEST(answered);
    BOOST_TEST(elapsed_ms(start) < 1000);
  }
}

// What a mount begins with bears with a node that is being started; one that stays away is told soon all the same.
BOOST_AUTO_TEST_CASE(describe_and_fence_wait_a_moment_for_a_node_that_is_starting) {
  TemporaryDirectory directory;
  ScriptedService service;
  const std::string path = directory / "node.sock";
  auto client = NodeClient::make("shm:" + path);
  BOOST_REQUIRE(client.ok());
  for (const bool describes : {true, false}) {
    const auto ask = [&] {
      return describes ? (*client)->describe(5000).ok() : (*client)->fence(some_identity(), 5000).ok();
    };
    TimePoint start = MonoClock::now();
    BOOST_TEST(!ask());
    BOOST_TEST(elapsed_ms(start) < 2000);
    std::optional<ServedNode> node;
    std::jthread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(250));
      node.emplace(service, path);
    });
    BOOST_TEST(ask());
    later.join();
  }
}

BOOST_AUTO_TEST_CASE(another_protocol_version_is_refused_by_name) {
  World world(true);
  const auto channel = grpc::CreateChannel(world.node.address(), grpc::InsecureChannelCredentials());
  const auto stub = node::Node::NewStub(channel);
  grpc::ClientContext context;
  node::HeartbeatRequest request;
  request.set_protocol_version(kNodeProtocolVersion + 1);
  node::HeartbeatReply reply;
  const grpc::Status status = stub->Heartbeat(&context, request, &reply);
  BOOST_TEST(!status.ok());
  BOOST_TEST(status.error_details().find("kVersion") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(an_identity_of_the_wrong_size_is_refused_by_the_server) {
  World world(true);
  const auto channel = grpc::CreateChannel(world.node.address(), grpc::InsecureChannelCredentials());
  const auto stub = node::Node::NewStub(channel);
  for (const std::string& uuid : {std::string(), std::string(15, 'x'), std::string(17, 'x'), std::string(16, '\0')}) {
    grpc::ClientContext context;
    node::FenceRequest request;
    request.set_protocol_version(kNodeProtocolVersion);
    request.mutable_who()->set_uuid(uuid);
    request.mutable_who()->set_key(std::string(16, 'k'));
    node::Empty reply;
    const grpc::Status status = stub->Fence(&context, request, &reply);
    BOOST_TEST(status.error_details().find("kProtocol") != std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(a_lease_outside_what_was_asked_is_a_broken_protocol) {
  World world(true);
  world.service.region.length_bytes = 1 << 20;
  const auto region = world.client->lease(some_identity(), 8192, 4096, 1, kLong);
  BOOST_TEST((!region.ok() && region.error().code == Errc::kProtocol));
}

BOOST_AUTO_TEST_CASE(a_long_list_of_regions_arrives_whole) {
  World world(true);
  world.service.list_size = 65'536;
  const auto list = world.client->list(some_identity(), kLong);
  BOOST_REQUIRE(list.ok());
  BOOST_TEST(list->size() == 65'536u);
}

BOOST_AUTO_TEST_CASE(socket_paths_of_any_length_and_with_any_bytes_work) {
  TemporaryDirectory directory;
  std::string deep = directory.path();
  for (int i = 0; i < 4; ++i) {
    deep += "/" + std::string(60, static_cast<char>('a' + i));
    BOOST_REQUIRE(::mkdir(deep.c_str(), 0700) == 0);
  }
  ScriptedService service;
  for (const std::string& path : {deep + "/node.sock", directory / "a b%41?#\xc3\xa9.sock"}) {
    BOOST_TEST_CONTEXT(path) {
      ServedNode node(service, path);
      auto client = NodeClient::make(node.address());
      BOOST_REQUIRE(client.ok());
      BOOST_TEST((*client)->heartbeat(kLong).ok());
    }
  }
}

BOOST_AUTO_TEST_CASE(bad_addresses_are_invalid) {
  for (const char* address : {"", "foo", "shm:", "unix:", "tcp://", "tcp://host", "tcp://host:", "tcp://host:0",
                              "tcp://host:65536", "tcp://host:12x", "tcp://:80", "tcp://::1:80", "tcp://[::1:80",
                              "tcp://[host]:80", "tcp://a/b:80", "http://host:80"}) {
    const auto client = NodeClient::make(address);
    BOOST_TEST_CONTEXT(address) { BOOST_TEST((!client.ok() && client.error().code == Errc::kInvalid)); }
  }
  for (const char* address : {"tcp://[::1]:80", "rdma://host:80", "shm:/a", "unix:relative"}) {
    BOOST_TEST_CONTEXT(address) { BOOST_TEST(NodeClient::make(address).ok()); }
  }
}

BOOST_AUTO_TEST_CASE(a_server_that_is_no_node_is_a_version_or_protocol_error) {
  TemporaryDirectory directory;
  auto socket = ListeningUnixSocket::bind(directory / "other.sock", 0600);
  BOOST_REQUIRE(socket.ok());
  std::atomic<bool> stop{false};
  std::thread talker([&] {
    while (!stop) {
      UniqueFd stream(::accept(socket->fd(), nullptr, nullptr));
      if (!stream.valid())
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      else if (::write(stream.get(), "220 smtp ready\r\n", 16) < 0)
        continue;
    }
  });
  auto client = NodeClient::make("unix:" + (directory / "other.sock"));
  BOOST_REQUIRE(client.ok());
  const TimePoint start = MonoClock::now();
  BOOST_TEST(!(*client)->describe(2000).ok());
  BOOST_TEST(elapsed_ms(start) < 4000);
  stop = true;
  talker.join();
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
