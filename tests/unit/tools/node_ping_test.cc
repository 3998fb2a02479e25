#include "tools/node_ping.h"

#include <boost/test/unit_test.hpp>

#include "tools/text_table.h"

namespace rmemfs {
namespace {

BOOST_AUTO_TEST_SUITE(node_ping)

BOOST_AUTO_TEST_CASE(percentiles_are_samples_by_nearest_rank) {
  std::vector<double> samples;
  for (int i = 100; i >= 1; --i) samples.push_back(i);
  PingMeasurement m;
  summarize(samples, m);
  BOOST_TEST(m.operations == 100u);
  BOOST_TEST(m.min_s == 1);
  BOOST_TEST(m.median_s == 50);
  BOOST_TEST(m.p99_s == 99);
  BOOST_TEST(m.max_s == 100);
  std::vector<double> one = {7};
  summarize(one, m);
  BOOST_TEST(m.min_s == 7);
  BOOST_TEST(m.p99_s == 7);
  std::vector<double> none;
  PingMeasurement empty;
  summarize(none, empty);
  BOOST_TEST(empty.operations == 0u);
  BOOST_TEST(empty.bytes_per_second() == 0);
}

BOOST_AUTO_TEST_CASE(bandwidth_is_bytes_over_time) {
  PingMeasurement m;
  m.size_bytes = 1000;
  m.operations = 30;
  m.seconds = 2;
  BOOST_TEST(m.bytes_per_second() == 15000);
}

BOOST_AUTO_TEST_CASE(a_unix_address_has_the_shared_memory_data_plane) {
  const auto address = data_address_of("unix:/run/rmemd.sock");
  BOOST_REQUIRE(address.ok());
  BOOST_TEST(address->to_string() == "shm:/run/rmemd.sock");
  BOOST_TEST(data_address_of("tcp://h:1")->to_string() == "tcp://h:1");
  BOOST_TEST(!data_address_of("unix:").ok());
  BOOST_TEST(!data_address_of("http://h:1").ok());
}

BOOST_AUTO_TEST_CASE(sizes_that_no_operation_has_are_refused_before_anything_is_asked) {
  PingOptions options;
  options.latency_sizes = {0};
  BOOST_TEST((ping_node("tcp://127.0.0.1:1", options).error().code == Errc::kInvalid));
  options.latency_sizes = {8};
  options.bandwidth_size = kMaxOperationBytes + 1;
  BOOST_TEST((ping_node("tcp://127.0.0.1:1", options).error().code == Errc::kInvalid));
  options.bandwidth_size = kMaxOperationBytes;
  options.depth = 65;
  BOOST_TEST((ping_node("tcp://127.0.0.1:1", options).error().code == Errc::kInvalid));
}

BOOST_AUTO_TEST_CASE(latencies_are_written_in_the_unit_that_fits) {
  BOOST_TEST(format_latency(480e-9) == "480 ns");
  BOOST_TEST(format_latency(12.34e-6) == "12.3 us");
  BOOST_TEST(format_latency(1.944e-3) == "1.94 ms");
  BOOST_TEST(format_latency(2.1) == "2.1 s");
  BOOST_TEST(text_table({{"a", "1"}, {"bcd", "22"}}, {false, true}) == "a     1\nbcd  22\n");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
