#include <boost/test/unit_test.hpp>

#include "transport/connection.h"
#include "transport/verbs_device.h"

namespace rmemfs {

BOOST_AUTO_TEST_SUITE(node_address)

BOOST_AUTO_TEST_CASE(good_addresses_parse_and_print_as_they_were) {
  struct Row {
    const char* text;
    TransportKind transport;
    const char* path;
    const char* host;
    std::uint16_t port;
  };
  const Row rows[] = {
      {"shm:/run/rmemd.sock", TransportKind::kShm, "/run/rmemd.sock", "", 0},
      {"shm:/a b:c", TransportKind::kShm, "/a b:c", "", 0},
      {"tcp://localhost:7471", TransportKind::kTcp, "", "localhost", 7471},
      {"tcp://10.0.0.1:1", TransportKind::kTcp, "", "10.0.0.1", 1},
      {"tcp://[::1]:65535", TransportKind::kTcp, "", "::1", 65535},
      {"tcp://[fe80::1%eth0]:7471", TransportKind::kTcp, "", "fe80::1%eth0", 7471},
      {"rdma://node-3.example:7471", TransportKind::kVerbs, "", "node-3.example", 7471},
  };
  for (const Row& row : rows) {
    BOOST_TEST_CONTEXT(row.text) {
      const auto address = NodeAddress::parse(row.text);
      BOOST_REQUIRE(address.ok());
      BOOST_TEST((address->transport == row.transport));
      BOOST_TEST(address->path == row.path);
      BOOST_TEST(address->host == row.host);
      BOOST_TEST(address->port == row.port);
      BOOST_TEST(address->to_string() == row.text);
    }
  }
}

BOOST_AUTO_TEST_CASE(bad_addresses_are_refused_with_their_text) {
  for (const char* text : {"",
                           "shm:",
                           "shm:relative",
                           "shm:/dir/",
                           "tcp:",
                           "tcp://",
                           "tcp://host",
                           "tcp://host:",
                           "tcp://:7471",
                           "tcp://host:0",
                           "tcp://host:65536",
                           "tcp://host:7471x",
                           "tcp://host:-1",
                           "tcp://host:+1",
                           "tcp://host: 1",
                           "tcp://::1:7471",
                           "tcp://[::1]",
                           "tcp://[::1]7471",
                           "tcp://[::1:7471",
                           "tcp://[host]:7471",
                           "tcp://[]:7471",
                           "tcp://ho st:7471",
                           "tcp://host:7471/",
                           "tcp://user@host:7471",
                           "udp://host:7471",
                           "TCP://host:7471",
                           "/run/rmemd.sock",
                           "host:7471",
                           "rdma://host"}) {
    BOOST_TEST_CONTEXT(text) {
      const auto address = NodeAddress::parse(text);
      BOOST_REQUIRE(!address.ok());
      BOOST_TEST((address.error().code == Errc::kInvalid));
      BOOST_TEST(address.error().detail.find(text) != std::string::npos);
    }
  }
}

BOOST_AUTO_TEST_CASE(verbs_is_named_as_missing_where_there_is_no_device) {
  const auto address = NodeAddress::parse("rdma://host:7471");
  BOOST_REQUIRE(address.ok());
  const auto connection = make_connection(*address, {});
  BOOST_REQUIRE(connection.ok() == !why_no_rdma().has_value());
  if (connection.ok()) return;
  BOOST_TEST((connection.error().code == Errc::kNotSupported));
  BOOST_TEST(connection.error().detail.find("rdma://host:7471") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
