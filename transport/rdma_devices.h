// What RDMA this machine has, as plain structs: devices, ports, their addresses (GIDs) and limits. For rmemctl doctor;
// no connection goes through here.
//
// Thread-safe. Opens each device for a moment; blocks as long as the kernel takes to answer, which is not long.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace rmemfs {

enum class RdmaLinkLayer : std::uint8_t { kUnknown, kInfiniband, kEthernet };
enum class RdmaPortState : std::uint8_t { kDown, kInitializing, kArmed, kActive, kOther };
enum class RdmaGidType : std::uint8_t { kInfiniband, kRoceV1, kRoceV2 };

// An address of a port. Over Ethernet a GID is an IP address of the network device: IPv4 as ::ffff:a.b.c.d.
struct RdmaGid {
  std::uint32_t index = 0;
  std::array<std::uint8_t, 16> bytes{};
  RdmaGidType type = RdmaGidType::kInfiniband;
  std::string network_device;  // empty when there is none

  bool is_ipv4() const;
  bool is_link_local() const;
  std::string to_string() const;  // "10.0.0.1", "fe80::1"
};

struct RdmaPort {
  std::uint32_t number = 1;
  RdmaPortState state = RdmaPortState::kDown;
  RdmaLinkLayer link_layer = RdmaLinkLayer::kUnknown;
  std::uint32_t active_mtu_bytes = 0, max_mtu_bytes = 0;
  std::vector<RdmaGid> gids;  // the table's used entries

  // The entry that rdma_cm takes for a connection over this port, as far as the table tells: with several networks the
  // route to the node decides between their addresses.
  std::optional<std::size_t> chosen_gid() const;
};

struct RdmaDevice {
  std::string name;      // "mlx5_0"
  std::string firmware;  // empty: not told
  bool iwarp = false;
  bool atomics = false;  // compare-and-swap
  bool on_demand_paging = false;
  bool native_flush = false;                 // RDMA FLUSH that makes bytes persistent
  std::uint64_t max_registration_bytes = 0;  // of one memory region (max_mr_size)
  std::uint64_t max_registrations = 0, max_queue_pairs = 0;
  std::vector<RdmaPort> ports;
};

struct RdmaInventory {
  std::vector<RdmaDevice> devices;
  std::string reason;                 // why there is none, in a sentence; empty when there are some
  std::vector<std::string> unusable;  // "mlx5_0: permission denied": devices that are there and cannot be asked
};

RdmaInventory list_rdma_devices();

const char* name(RdmaLinkLayer layer);  // "Ethernet"
const char* name(RdmaPortState state);  // "active"
const char* name(RdmaGidType type);     // "RoCE v2"

}  // namespace rmemfs
