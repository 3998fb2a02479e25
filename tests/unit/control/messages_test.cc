#include <boost/test/unit_test.hpp>

#include "control/grpc_status.h"
#include "control/node_messages.h"

namespace rmemfs {
namespace {

node::Region sound_region() {
  node::Region region;
  region.set_id(1);
  region.set_generation(2);
  region.set_key(std::string(16, 'k'));
  region.set_length_bytes(4096);
  return region;
}

template <typename Change>
void check_refused(Change change) {
  node::Region region = sound_region();
  change(region);
  const auto read = read_message(region);
  BOOST_TEST((!read.ok() && read.error().code == Errc::kProtocol));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(node_messages)

BOOST_AUTO_TEST_CASE(a_region_that_makes_no_sense_is_refused) {
  BOOST_TEST(read_message(sound_region()).ok());
  check_refused([](node::Region& r) { r.set_key("short"); });
  check_refused([](node::Region& r) { r.set_generation(0); });
  check_refused([](node::Region& r) { r.set_length_bytes(0); });
  check_refused([](node::Region& r) { r.set_length_bytes(4097); });
  check_refused([](node::Region& r) { r.set_address(UINT64_MAX); });
  check_refused([](node::Region& r) { r.set_durability(3); });
  check_refused([](node::Region& r) { r.set_persist_method(1u << 30); });
}

BOOST_AUTO_TEST_CASE(a_description_that_makes_no_sense_is_refused) {
  node::DescribeReply reply;
  reply.set_pool(std::string(16, 'p'));
  reply.set_generation(1);
  reply.set_pool_bytes(10);
  reply.set_free_bytes(10);
  BOOST_TEST(read_message(reply).ok());
  reply.set_free_bytes(11);
  BOOST_TEST(!read_message(reply).ok());
  reply.set_free_bytes(0);
  reply.set_generation(0);
  BOOST_TEST(!read_message(reply).ok());
}

BOOST_AUTO_TEST_CASE(a_failure_of_the_call_itself_has_a_code_of_ours) {
  const auto code = [](grpc::StatusCode status) { return from_status(grpc::Status(status, "x"), "w", "p").code; };
  BOOST_TEST((code(grpc::StatusCode::UNAVAILABLE) == Errc::kUnreachable));
  BOOST_TEST((code(grpc::StatusCode::DEADLINE_EXCEEDED) == Errc::kDeadline));
  BOOST_TEST((code(grpc::StatusCode::UNIMPLEMENTED) == Errc::kVersion));
  BOOST_TEST((code(grpc::StatusCode::INTERNAL) == Errc::kProtocol));
  const auto detail = [](const std::string& text) {
    return from_status(grpc::Status(grpc::StatusCode::UNAVAILABLE, text), "w", "p").detail;
  };
  BOOST_TEST(detail("failed to connect to all addresses; last error: UNKNOWN: Failed to connect to remote host: "
                    "Connection refused") == "p: Connection refused");
  BOOST_TEST(detail("last error: UNKNOWN: connection attempt timed out before receiving SETTINGS frame") ==
             "p: connected, but no answer");
  BOOST_TEST(detail("Socket closed") == "p: Socket closed");
  BOOST_TEST(detail("") == "p");
  BOOST_TEST(detail("x: two\nlines") == "p: two lines");
  BOOST_TEST(detail(std::string(1000, 'x')) == "p");
  const grpc::Status garbage(grpc::StatusCode::UNKNOWN, "x", "\x01\x02 not a failure");
  BOOST_TEST((from_status(garbage, "w", "p").code == Errc::kProtocol));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
