#include "manager/posix_acl.h"

#include <algorithm>

#include "util/bytes.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kAclVersion = 2;
constexpr std::uint32_t kNoId = UINT32_MAX;
constexpr std::size_t kEntryBytes = 8;

Error invalid() { return Error(Errc::kInvalid, "access list"); }

bool named(const AccessEntry& entry) { return entry.tag == AccessEntry::kUser || entry.tag == AccessEntry::kGroup; }

AccessEntry* find(AccessList& list, std::uint16_t tag) {
  const auto it = std::find_if(list.begin(), list.end(), [&](const AccessEntry& entry) { return entry.tag == tag; });
  return it == list.end() ? nullptr : &*it;
}
const AccessEntry* find(const AccessList& list, std::uint16_t tag) { return find(const_cast<AccessList&>(list), tag); }

// What stands for the group in the permission bits: the mask, or without one the owning group.
template <typename List>
auto* group_class(List& list) {
  auto* const mask = find(list, AccessEntry::kMask);
  return mask != nullptr ? mask : find(list, AccessEntry::kOwningGroup);
}

// Owner, users, group, groups, mask, others: in this order, the unnamed ones once, and a mask where anybody is named.
bool valid(const AccessList& list) {
  std::uint16_t last = 0;
  bool names = false;
  for (const AccessEntry& entry : list) {
    const auto tag = entry.tag;
    if (tag == 0 || tag > AccessEntry::kOther || (tag & (tag - 1)) != 0 || entry.permissions > 7) return false;
    if (tag < last || (tag == last && !named(entry))) return false;
    if (named(entry) && entry.id == kNoId) return false;
    names |= named(entry);
    last = tag;
  }
  return find(list, AccessEntry::kOwner) != nullptr && find(list, AccessEntry::kOwningGroup) != nullptr &&
         find(list, AccessEntry::kOther) != nullptr && (!names || find(list, AccessEntry::kMask) != nullptr);
}

}  // namespace

Result<AccessList> decode_access_list(std::string_view bytes) {
  ByteReader reader(as_bytes(bytes));
  if (bytes.size() < 4 || (bytes.size() - 4) % kEntryBytes != 0) return invalid();
  if (reader.take<std::uint32_t>() != kAclVersion) return invalid();
  AccessList list;
  while (reader.remaining() != 0) {
    AccessEntry entry;
    entry.tag = reader.take<std::uint16_t>();
    entry.permissions = reader.take<std::uint16_t>();
    entry.id = reader.take<std::uint32_t>();
    list.push_back(entry);
  }
  if (!valid(list)) return invalid();
  return list;
}

std::string encode_access_list(const AccessList& list) {
  std::string out;
  append_le(out, kAclVersion);
  for (const AccessEntry& entry : list) {
    append_le(out, entry.tag);
    append_le(out, entry.permissions);
    append_le(out, named(entry) ? entry.id : kNoId);
  }
  return out;
}

std::uint32_t mode_of(const AccessList& list) {
  return static_cast<std::uint32_t>(find(list, AccessEntry::kOwner)->permissions << 6 |
                                    group_class(list)->permissions << 3 | find(list, AccessEntry::kOther)->permissions);
}

bool is_mode_only(const AccessList& list) { return list.size() == 3; }

void change_mode(AccessList& list, std::uint32_t mode) {
  find(list, AccessEntry::kOwner)->permissions = mode >> 6 & 7;
  group_class(list)->permissions = mode >> 3 & 7;
  find(list, AccessEntry::kOther)->permissions = mode & 7;
}

void restrict_to(AccessList& list, std::uint32_t& mode) {
  find(list, AccessEntry::kOwner)->permissions &= mode >> 6 & 7;
  group_class(list)->permissions &= mode >> 3 & 7;
  find(list, AccessEntry::kOther)->permissions &= mode & 7;
  mode = (mode & ~0777u) | mode_of(list);
}

}  // namespace rmemfs
