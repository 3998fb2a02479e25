// Extended attributes. Who may read or change which is checked by the kernel, except for what listing shows.
#include <sys/stat.h>

#include "fs/file_system.h"
#include "manager/posix_acl.h"

namespace rmemfs {
namespace {

constexpr std::string_view kTrusted = "trusted.";
constexpr std::string_view kCapabilities = "security.capability";

bool is_access_list(std::string_view name) { return name == kAccessListName || name == kDefaultListName; }

Result<void> check_name(std::string_view name, bool access_lists) {
  if (is_access_list(name) && access_lists) return success();
  for (const std::string_view prefix : {std::string_view("user."), kTrusted, std::string_view("security.")}) {
    if (!name.starts_with(prefix)) continue;
    if (name.size() == prefix.size()) return Error(Errc::kInvalid, "attribute name");
    return success();
  }
  return Error(Errc::kNotSupported, "attribute name");
}

}  // namespace

Result<std::string> FileSystem::get_extended(InodeNumber ino, std::string_view name) {
  RETURN_IF_ERROR(check_name(name, options_.access_lists));
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.get(ino));
  return manager_.get_extended(*inode, name);
}

Result<std::string> FileSystem::list_extended(RequestContext context, InodeNumber ino) {
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.get(ino));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, manager_.list_extended(*inode));
  std::string list;
  for (const std::string& name : names) {
    if (context.uid != 0 && name.starts_with(kTrusted)) continue;
    if (!options_.access_lists && is_access_list(name)) continue;
    list += name;
    list += '\0';
  }
  return list;
}

Task<Result<void>> FileSystem::set_extended(RequestContext context, InodeNumber ino, ExtendedChange change) {
  CO_RETURN_IF_ERROR(writable());
  CO_RETURN_IF_ERROR(check_name(change.name, options_.access_lists));
  CO_ASSIGN_OR_RETURN(InodeRef inode, manager_.get(ino));
  if (change.name == kAccessListName && change.value) {
    change.clear_group_id = !keeps_group_id(context, manager_.attributes(*inode));
  }
  co_return co_await manager_.set_extended(std::move(inode), change, context.request);
}

Task<Result<void>> FileSystem::drop_capabilities(RequestContext context, InodeRef inode) {
  if (options_.extended || manager_.extended_bytes(*inode) == 0) co_return success();
  ExtendedChange change;
  change.name = kCapabilities;
  auto dropped = co_await manager_.set_extended(std::move(inode), change, context.request);
  if (!dropped.ok() && dropped.error().code != Errc::kNoAttribute) co_return dropped;
  co_return success();
}

}  // namespace rmemfs
