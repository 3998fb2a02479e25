#include "transport/rdma_devices.h"

#include <boost/test/unit_test.hpp>

#include <arpa/inet.h>

namespace rmemfs {
namespace {

RdmaGid gid(std::uint32_t index, const char* text, RdmaGidType type) {
  RdmaGid made;
  made.index = index;
  made.type = type;
  BOOST_REQUIRE_EQUAL(::inet_pton(AF_INET6, text, made.bytes.data()), 1);
  return made;
}

RdmaPort port(RdmaLinkLayer layer, std::vector<RdmaGid> gids) {
  RdmaPort made;
  made.link_layer = layer;
  made.gids = std::move(gids);
  return made;
}

BOOST_AUTO_TEST_SUITE(rdma_devices)

BOOST_AUTO_TEST_CASE(an_ipv4_gid_is_written_as_ipv4) {
  const RdmaGid ipv4 = gid(1, "::ffff:10.77.0.1", RdmaGidType::kRoceV2);
  BOOST_TEST(ipv4.is_ipv4());
  BOOST_TEST(ipv4.to_string() == "10.77.0.1");
  const RdmaGid local = gid(0, "fe80::1", RdmaGidType::kRoceV2);
  BOOST_TEST(!local.is_ipv4());
  BOOST_TEST(local.is_link_local());
  BOOST_TEST(local.to_string() == "fe80::1");
  BOOST_TEST(!gid(0, "fec0::1", RdmaGidType::kRoceV2).is_link_local());
}

BOOST_AUTO_TEST_CASE(over_ethernet_roce_v2_with_an_ip_address_is_chosen) {
  const RdmaPort all =
      port(RdmaLinkLayer::kEthernet,
           {gid(0, "fe80::1", RdmaGidType::kRoceV1), gid(1, "fe80::1", RdmaGidType::kRoceV2),
            gid(2, "::ffff:10.0.0.1", RdmaGidType::kRoceV1), gid(4, "2001:db8::1", RdmaGidType::kRoceV2),
            gid(5, "::ffff:10.0.0.1", RdmaGidType::kRoceV2)});
  BOOST_TEST(all.gids[*all.chosen_gid()].index == 5u);
  const RdmaPort ipv6 = port(RdmaLinkLayer::kEthernet,
                             {gid(0, "fe80::1", RdmaGidType::kRoceV2), gid(1, "::ffff:10.0.0.1", RdmaGidType::kRoceV1),
                              gid(2, "2001:db8::1", RdmaGidType::kRoceV2)});
  BOOST_TEST(ipv6.gids[*ipv6.chosen_gid()].index == 2u);
  const RdmaPort old = port(RdmaLinkLayer::kEthernet,
                            {gid(0, "fe80::1", RdmaGidType::kRoceV1), gid(1, "::ffff:10.0.0.1", RdmaGidType::kRoceV1)});
  BOOST_TEST(old.gids[*old.chosen_gid()].index == 1u);
}

BOOST_AUTO_TEST_CASE(over_infiniband_the_first_is_chosen) {
  const RdmaPort two = port(RdmaLinkLayer::kInfiniband,
                            {gid(1, "fe80::2", RdmaGidType::kInfiniband), gid(0, "fe80::1", RdmaGidType::kInfiniband)});
  BOOST_TEST(two.gids[*two.chosen_gid()].index == 0u);
  BOOST_TEST(!port(RdmaLinkLayer::kInfiniband, {}).chosen_gid().has_value());
}

// Whatever this machine has: an empty list says why.
BOOST_AUTO_TEST_CASE(a_machine_without_devices_says_why) {
  const RdmaInventory inventory = list_rdma_devices();
  BOOST_TEST(inventory.devices.empty() == !inventory.reason.empty());
  for (const RdmaDevice& device : inventory.devices) BOOST_TEST(!device.name.empty());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace rmemfs
