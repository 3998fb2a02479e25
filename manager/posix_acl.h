// POSIX access lists: pure functions on the form in which the kernel passes them (acl(5), linux/posix_acl_xattr.h). The
// rules are those of POSIX.1e draft 17, as the kernel's own file systems follow them. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "util/result.h"

namespace rmemfs {

inline constexpr std::string_view kAccessListName = "system.posix_acl_access";
inline constexpr std::string_view kDefaultListName = "system.posix_acl_default";

struct AccessEntry {
  enum Tag : std::uint16_t { kOwner = 1, kUser = 2, kOwningGroup = 4, kGroup = 8, kMask = 16, kOther = 32 };
  std::uint16_t tag = 0;
  std::uint16_t permissions = 0;  // 0..7
  std::uint32_t id = 0;           // of kUser and kGroup
};
using AccessList = std::vector<AccessEntry>;

// kInvalid: not an access list, or one that the kernel would not take.
Result<AccessList> decode_access_list(std::string_view bytes);
std::string encode_access_list(const AccessList& list);

// The permission bits that say the same, or as much of it as bits can.
std::uint32_t mode_of(const AccessList& list);
// Whether they say all of it, so that the list need not be kept.
bool is_mode_only(const AccessList& list);
// chmod(2): the list's part of the permission bits becomes that of `mode`.
void change_mode(AccessList& list, std::uint32_t mode);
// A new file's list out of its directory's default list and the mode it is made with, which keeps only what both allow.
void restrict_to(AccessList& list, std::uint32_t& mode);

}  // namespace rmemfs
