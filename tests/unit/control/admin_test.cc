#include <sys/socket.h>

#include <boost/test/unit_test.hpp>
#include <chrono>

#include "control/admin.h"
#include "tests/unit/control/test_node.h"
#include "util/clock.h"

namespace rmemfs::test {
namespace {

AdminHandlers some_handlers() {
  AdminHandlers handlers;
  handlers.status = [] {
    AdminStatus status;
    status.uuid = "some-uuid";
    status.directory = "/d\xff";  // file names are bytes
    status.mountpoint = "/mnt";
    status.version = "1.2";
    status.state = "serving";
    status.reason = "because";
    status.survives = "daemon death";
    status.pid = 1;
    status.epoch = 2;
    status.lanes = 3;
    status.total_bytes = 4;
    status.free_bytes = 5;
    status.inodes = 6;
    status.lost_bytes = 7;
    status.uptime_seconds = 8.5;
    return status;
  };
  handlers.counters = [] { return AdminCounters{{"journal.transactions", 17}, {"journal.drains_per", 0.25}}; };
  handlers.nodes = [] {
    AdminNode node;
    node.id = 3;
    node.address = "tcp://h:1";
    node.health = "answers";
    node.durability = "volatile";
    node.pool_bytes = 1, node.free_bytes = 2, node.leased_bytes = 3, node.used_bytes = 4, node.lost_bytes = 5;
    node.chunks = 6;
    node.seconds_since_answer = 0.5;
    return std::vector<AdminNode>{AdminNode{}, node};
  };
  handlers.lost_files = [] {
    std::vector<std::string> files;
    for (int i = 0; i < 2500; ++i) files.push_back("/lost/\xfe" + std::to_string(i));
    return files;
  };
  handlers.remount = [](unsigned long flags) -> Result<void> {
    if (flags == 1) return Error(Errc::kReadOnly, "remount", "because");
    return success();
  };
  return handlers;
}

long elapsed_ms(TimePoint start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(MonoClock::now() - start).count();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(admin)

BOOST_AUTO_TEST_CASE(every_question_is_answered) {
  TemporaryDirectory directory;
  const auto server = AdminServer::start(directory.path(), some_handlers());
  BOOST_REQUIRE(server.ok());
  struct stat socket;
  BOOST_REQUIRE(::stat((directory / "admin.sock").c_str(), &socket) == 0);
  BOOST_TEST((socket.st_mode & 0777) == 0600u);
  const auto client = AdminClient::connect(directory.path());
  BOOST_REQUIRE(client.ok());
  const auto status = (*client)->status(5000);
  BOOST_REQUIRE(status.ok());
  BOOST_TEST(status->directory == "/d\xff");
  BOOST_TEST(status->reason == "because");
  BOOST_TEST(status->survives == "daemon death");
  BOOST_TEST(status->lost_bytes == 7u);
  BOOST_TEST(status->uptime_seconds == 8.5);
  const auto counters = (*client)->counters(5000);
  BOOST_REQUIRE(counters.ok());
  BOOST_REQUIRE(counters->size() == 2u);
  BOOST_TEST(counters->at(1).first == "journal.drains_per");
  BOOST_TEST(counters->at(1).second == 0.25);
  const auto nodes = (*client)->nodes(5000);
  BOOST_REQUIRE(nodes.ok());
  BOOST_REQUIRE(nodes->size() == 2u);
  BOOST_TEST(nodes->at(1).address == "tcp://h:1");
  BOOST_TEST(nodes->at(1).chunks == 6u);
  const auto files = (*client)->lost_files(5000);
  BOOST_REQUIRE(files.ok());
  BOOST_REQUIRE(files->size() == 2500u);
  BOOST_TEST(files->back() ==
             "/lost/\xfe"
             "2499");
}

BOOST_AUTO_TEST_CASE(nothing_mounted_is_said_clearly) {
  TemporaryDirectory directory;
  const auto none = AdminClient::connect(directory.path());
  BOOST_REQUIRE(!none.ok());
  BOOST_TEST((none.error().code == Errc::kNotFound));
  BOOST_TEST((AdminClient::connect(directory / "nowhere").error().code == Errc::kNotFound));
  { BOOST_REQUIRE(AdminServer::start(directory.path(), some_handlers()).ok()); }
  BOOST_TEST((AdminClient::connect(directory.path()).error().code == Errc::kNotFound));
}

BOOST_AUTO_TEST_CASE(a_second_server_on_one_directory_is_refused) {
  TemporaryDirectory directory;
  const auto first = AdminServer::start(directory.path(), some_handlers());
  BOOST_REQUIRE(first.ok());
  const auto second = AdminServer::start(directory.path(), some_handlers());
  BOOST_TEST((!second.ok() && second.error().code == Errc::kLocked));
  BOOST_TEST(AdminClient::connect(directory.path()).ok());
}

BOOST_AUTO_TEST_CASE(a_directory_with_a_long_name_works) {
  TemporaryDirectory directory;
  const std::string deep = directory / std::string(200, 'd');
  BOOST_REQUIRE(::mkdir(deep.c_str(), 0700) == 0);
  const auto server = AdminServer::start(deep, some_handlers());
  BOOST_REQUIRE(server.ok());
  const auto client = AdminClient::connect(deep);
  BOOST_REQUIRE(client.ok());
  BOOST_TEST((*client)->status(5000).ok());
}

BOOST_AUTO_TEST_CASE(a_frozen_mount_gives_the_deadline) {
  TemporaryDirectory directory;
  const auto socket = ListeningUnixSocket::bind(directory / "admin.sock", 0600, 0);
  BOOST_REQUIRE(socket.ok());
  // Nobody accepts; its queue is full after the second stream.
  for (int i = 0; i < 3; ++i) {
    const auto client = AdminClient::connect(directory.path());
    BOOST_REQUIRE(client.ok());
    const TimePoint start = MonoClock::now();
    const auto status = (*client)->status(300);
    BOOST_TEST(!status.ok());
    BOOST_TEST(elapsed_ms(start) < 1500);
  }
}

BOOST_AUTO_TEST_CASE(the_server_ends_within_a_second_though_a_handler_is_slow_and_strangers_are_connected) {
  TemporaryDirectory directory;
  AdminHandlers handlers = some_handlers();
  handlers.counters = [] {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    return AdminCounters{};
  };
  auto server = AdminServer::start(directory.path(), std::move(handlers));
  BOOST_REQUIRE(server.ok());
  const auto where = SocketPath::open(directory / "admin.sock");
  std::vector<UniqueFd> strangers;
  for (int i = 0; i < 20; ++i) {
    auto stranger = connect_unix(*where);
    if (stranger.ok()) strangers.push_back(std::move(*stranger));
  }
  const auto client = AdminClient::connect(directory.path());
  BOOST_REQUIRE(client.ok());
  bool answered = true;  // looked at when the thread is over: Boost.Test is for one thread
  std::thread caller([&] { answered = (*client)->counters(100).ok(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const TimePoint start = MonoClock::now();
  server->reset();
  BOOST_TEST(elapsed_ms(start) < 2000);
  caller.join();
  BOOST_TEST(!answered);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
