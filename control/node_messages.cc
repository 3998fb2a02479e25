#include "control/node_messages.h"

#include <algorithm>
#include <cstring>

namespace rmemfs {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint32_t kLastDurability = 2;     // Durability::kPersistent
constexpr std::uint32_t kLastPersistMethod = 3;  // PersistMethod::kNativeFlush

using Bytes16 = std::array<std::byte, 16>;

std::string text_of(const Bytes16& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

Result<void> read_bytes(const std::string& text, Bytes16& bytes, const char* what) {
  if (text.size() != bytes.size()) return Error(Errc::kProtocol, "message", std::string(what) + " is not of 16 bytes");
  std::memcpy(bytes.data(), text.data(), bytes.size());
  return success();
}

Result<void> check_durability(std::uint32_t durability, std::uint32_t method) {
  if (durability > kLastDurability || method > kLastPersistMethod) {
    return Error(Errc::kProtocol, "message", "unknown durability");
  }
  return success();
}

}  // namespace

void write_message(const FileSystemIdentity& who, node::FileSystem& message) {
  message.set_uuid(text_of(who.uuid.bytes));
  message.set_key(text_of(who.key.bytes));
  message.set_epoch(who.epoch.value());
}

void write_message(const LeasedRegion& region, node::Region& message) {
  message.set_id(region.id.value());
  message.set_generation(region.generation.value());
  message.set_key(text_of(region.key.bytes));
  message.set_length_bytes(region.length_bytes);
  message.set_address(region.address);
  message.set_rkey(region.rkey);
  message.set_durability(region.durability);
  message.set_persist_method(region.persist_method);
  message.set_tag(region.tag);
}

void write_message(const NodeDescription& description, node::DescribeReply& message) {
  message.set_protocol_version(description.protocol_version);
  message.set_pool(text_of(description.pool.bytes));
  message.set_generation(description.generation.value());
  message.set_pool_bytes(description.pool_bytes);
  message.set_free_bytes(description.free_bytes);
  message.set_regions(description.regions);
  message.set_durability(description.durability);
  message.set_persist_method(description.persist_method);
  message.set_version(description.version);
  message.set_pid(description.pid);
  message.set_pool_path(description.pool_path);
}

Result<FileSystemIdentity> read_message(const node::FileSystem& message) {
  FileSystemIdentity who;
  RETURN_IF_ERROR(read_bytes(message.uuid(), who.uuid.bytes, "a file system's uuid"));
  RETURN_IF_ERROR(read_bytes(message.key(), who.key.bytes, "a file system's key"));
  if (who.uuid.is_zero()) return Error(Errc::kProtocol, "message", "a file system's uuid is zero");
  who.epoch = MountEpoch(message.epoch());
  return who;
}

Result<LeasedRegion> read_message(const node::Region& message) {
  LeasedRegion region;
  RETURN_IF_ERROR(read_bytes(message.key(), region.key.bytes, "a region's key"));
  RETURN_IF_ERROR(check_durability(message.durability(), message.persist_method()));
  if (message.generation() == 0) return Error(Errc::kProtocol, "message", "a region's generation is zero");
  if (message.length_bytes() == 0 || message.length_bytes() % kPage != 0) {
    return Error(Errc::kProtocol, "message", "a region's length is not of whole pages");
  }
  if (message.address() > UINT64_MAX - message.length_bytes()) {
    return Error(Errc::kProtocol, "message", "a region's address is out of range");
  }
  region.id = RegionId(message.id());
  region.generation = Generation(message.generation());
  region.length_bytes = message.length_bytes();
  region.address = message.address();
  region.rkey = message.rkey();
  region.durability = static_cast<std::uint8_t>(message.durability());
  region.persist_method = static_cast<std::uint8_t>(message.persist_method());
  region.tag = message.tag();
  return region;
}

Result<NodeDescription> read_message(const node::DescribeReply& message) {
  NodeDescription description;
  RETURN_IF_ERROR(read_bytes(message.pool(), description.pool.bytes, "a pool's uuid"));
  RETURN_IF_ERROR(check_durability(message.durability(), message.persist_method()));
  if (message.generation() == 0) return Error(Errc::kProtocol, "message", "a pool's generation is zero");
  if (message.free_bytes() > message.pool_bytes()) {
    return Error(Errc::kProtocol, "message", "a pool has more free than it has");
  }
  description.protocol_version = message.protocol_version();
  description.generation = Generation(message.generation());
  description.pool_bytes = message.pool_bytes();
  description.free_bytes = message.free_bytes();
  description.regions = message.regions();
  description.durability = static_cast<std::uint8_t>(message.durability());
  description.persist_method = static_cast<std::uint8_t>(message.persist_method());
  description.version = message.version();
  description.pid = message.pid();
  description.pool_path = message.pool_path();
  return description;
}

}  // namespace rmemfs
