#include "transport/rdma_devices.h"

#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <tuple>

namespace rmemfs {
namespace {

// The kernel's IB_UVERBS_DEVICE_FLUSH_PERSISTENT (rdma/ib_user_verbs.h, Linux 6.3), which older headers do not name.
constexpr std::uint64_t kFlushPersistent = std::uint64_t{1} << 39;
// The largest table of a port that is read: devices have at most a few hundred entries.
constexpr std::size_t kMaxGids = 4096;

std::string text_of(int number) { return std::generic_category().message(number); }

std::uint32_t mtu_bytes(ibv_mtu mtu) {
  return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128u << static_cast<unsigned>(mtu) : 0;
}

RdmaPortState state_of(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN:
      return RdmaPortState::kDown;
    case IBV_PORT_INIT:
      return RdmaPortState::kInitializing;
    case IBV_PORT_ARMED:
      return RdmaPortState::kArmed;
    case IBV_PORT_ACTIVE:
      return RdmaPortState::kActive;
    default:
      return RdmaPortState::kOther;
  }
}

RdmaLinkLayer layer_of(std::uint8_t layer) {
  if (layer == IBV_LINK_LAYER_ETHERNET) return RdmaLinkLayer::kEthernet;
  // Devices older than Ethernet's do not say.
  return RdmaLinkLayer::kInfiniband;
}

RdmaGid gid_of(const ibv_gid_entry& entry) {
  RdmaGid gid;
  gid.index = entry.gid_index;
  std::copy_n(entry.gid.raw, gid.bytes.size(), gid.bytes.begin());
  gid.type = entry.gid_type == IBV_GID_TYPE_ROCE_V2   ? RdmaGidType::kRoceV2
             : entry.gid_type == IBV_GID_TYPE_ROCE_V1 ? RdmaGidType::kRoceV1
                                                      : RdmaGidType::kInfiniband;
  char device[IF_NAMESIZE];
  if (entry.ndev_ifindex != 0 && ::if_indextoname(entry.ndev_ifindex, device) != nullptr) gid.network_device = device;
  return gid;
}

void read_gids(ibv_context* context, std::size_t table_length, RdmaDevice& device) {
  std::vector<ibv_gid_entry> entries(std::min(table_length, kMaxGids));
  if (entries.empty()) return;
  const ssize_t count = ::ibv_query_gid_table(context, entries.data(), entries.size(), 0);
  for (ssize_t i = 0; i < count; ++i) {
    for (RdmaPort& port : device.ports) {
      if (port.number == entries[static_cast<std::size_t>(i)].port_num) {
        port.gids.push_back(gid_of(entries[static_cast<std::size_t>(i)]));
      }
    }
  }
}

// An errno, or 0.
int read_device(ibv_context* context, RdmaDevice& device) {
  ibv_device_attr_ex attributes{};
  if (const int number = ::ibv_query_device_ex(context, nullptr, &attributes)) return number;
  const ibv_device_attr& plain = attributes.orig_attr;
  device.firmware.assign(plain.fw_ver, ::strnlen(plain.fw_ver, sizeof plain.fw_ver));
  device.iwarp = context->device->transport_type == IBV_TRANSPORT_IWARP;
  device.atomics = plain.atomic_cap != IBV_ATOMIC_NONE;
  device.on_demand_paging = (attributes.odp_caps.general_caps & IBV_ODP_SUPPORT) != 0;
  device.native_flush = (attributes.device_cap_flags_ex & kFlushPersistent) != 0;
  device.max_registration_bytes = plain.max_mr_size;
  device.max_registrations = static_cast<std::uint64_t>(std::max(plain.max_mr, 0));
  device.max_queue_pairs = static_cast<std::uint64_t>(std::max(plain.max_qp, 0));
  std::size_t table_length = 0;
  for (std::uint8_t number = 1; number <= plain.phys_port_cnt; ++number) {
    ibv_port_attr attributes_of_port{};
    if (const int failed = ::ibv_query_port(context, number, &attributes_of_port)) return failed;
    RdmaPort port;
    port.number = number;
    port.state = state_of(attributes_of_port.state);
    port.link_layer = layer_of(attributes_of_port.link_layer);
    port.active_mtu_bytes = mtu_bytes(attributes_of_port.active_mtu);
    port.max_mtu_bytes = mtu_bytes(attributes_of_port.max_mtu);
    table_length += static_cast<std::size_t>(std::max(attributes_of_port.gid_tbl_len, 0));
    device.ports.push_back(std::move(port));
    if (number == UINT8_MAX) break;
  }
  read_gids(context, table_length, device);
  return 0;
}

}  // namespace

bool RdmaGid::is_ipv4() const {
  return std::all_of(bytes.begin(), bytes.begin() + 10, [](std::uint8_t b) { return b == 0; }) && bytes[10] == 0xff &&
         bytes[11] == 0xff;
}

bool RdmaGid::is_link_local() const { return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80; }

std::string RdmaGid::to_string() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (is_ipv4()) {
    ::inet_ntop(AF_INET, bytes.data() + 12, text, sizeof text);
  } else {
    ::inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
  }
  return text;
}

std::optional<std::size_t> RdmaPort::chosen_gid() const {
  // Over Infiniband the first entry is the port's own. Over Ethernet rdma_cm takes the entry of the connection's IP
  // address, RoCE v2 before v1; a link-local address is what is left when the network device has no other.
  const auto rank = [this](std::size_t i) {
    const RdmaGid& gid = gids[i];
    return std::tuple(gid.type == RdmaGidType::kRoceV2 ? 0 : 1,
                      gid.is_ipv4()         ? 0
                      : gid.is_link_local() ? 2
                                            : 1,
                      gid.index);
  };
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < gids.size(); ++i) {
    if (link_layer == RdmaLinkLayer::kInfiniband ? !best || gids[i].index < gids[*best].index
                                                 : !best || rank(i) < rank(*best)) {
      best = i;
    }
  }
  return best;
}

RdmaInventory list_rdma_devices() {
  RdmaInventory inventory;
  int count = 0;
  errno = 0;
  const std::unique_ptr<ibv_device*, void (*)(ibv_device**)> list(::ibv_get_device_list(&count),
                                                                  ::ibv_free_device_list);
  if (list == nullptr) {
    inventory.reason = errno == ENOSYS ? "the kernel's RDMA modules are not loaded"
                                       : "the RDMA devices cannot be listed: " + text_of(errno);
    return inventory;
  }
  for (int i = 0; i < count; ++i) {
    RdmaDevice device;
    device.name = ::ibv_get_device_name(list.get()[i]);
    errno = 0;
    const std::unique_ptr<ibv_context, int (*)(ibv_context*)> context(::ibv_open_device(list.get()[i]),
                                                                      ::ibv_close_device);
    int failed = context == nullptr ? (errno != 0 ? errno : ENODEV) : 0;
    if (context != nullptr) failed = read_device(context.get(), device);
    if (failed != 0) {
      inventory.unusable.push_back(device.name + ": " + text_of(failed));
    } else {
      inventory.devices.push_back(std::move(device));
    }
  }
  if (inventory.devices.empty()) {
    inventory.reason = inventory.unusable.empty() ? "this machine has no RDMA device" : "no RDMA device can be opened";
  }
  return inventory;
}

const char* name(RdmaLinkLayer layer) {
  switch (layer) {
    case RdmaLinkLayer::kInfiniband:
      return "InfiniBand";
    case RdmaLinkLayer::kEthernet:
      return "Ethernet";
    case RdmaLinkLayer::kUnknown:
      break;
  }
  return "unknown";
}

const char* name(RdmaPortState state) {
  switch (state) {
    case RdmaPortState::kDown:
      return "down";
    case RdmaPortState::kInitializing:
      return "initializing";
    case RdmaPortState::kArmed:
      return "armed";
    case RdmaPortState::kActive:
      return "active";
    case RdmaPortState::kOther:
      break;
  }
  return "in another state";
}

const char* name(RdmaGidType type) {
  switch (type) {
    case RdmaGidType::kInfiniband:
      return "InfiniBand";
    case RdmaGidType::kRoceV1:
      return "RoCE v1";
    case RdmaGidType::kRoceV2:
      return "RoCE v2";
  }
  return "unknown";
}

}  // namespace rmemfs
