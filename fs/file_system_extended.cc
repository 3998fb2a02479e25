// Extended attributes. Who may read or change which is checked by the kernel, except for what listing shows.
#include <sys/stat.h>

#include "fs/file_system.h"
#include "manager/posix_acl.h"

namespace rmemfs {
namespace {

constexpr std::string_view kTrusted = "trusted.";

Result<void> check_name(std::string_view name) {
  if (name == kAccessListName || name == kDefaultListName) return success();
  for (const std::string_view prefix : {std::string_view("user."), kTrusted, std::string_view("security.")}) {
    if (!name.starts_with(prefix)) continue;
    if (name.size() == prefix.size()) return Error(Errc::kInvalid, "attribute name");
    return success();
  }
  return Error(Errc::kNotSupported, "attribute name");
}

}  // namespace

Result<std::string> FileSystem::get_extended(InodeNumber ino, std::string_view name) {
  RETURN_IF_ERROR(check_name(name));
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.get(ino));
  return manager_.get_extended(*inode, name);
}

Result<std::string> FileSystem::list_extended(RequestContext context, InodeNumber ino) {
  ASSIGN_OR_RETURN(const InodeRef inode, manager_.get(ino));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, manager_.list_extended(*inode));
  std::string list;
  for (const std::string& name : names) {
    if (context.uid != 0 && name.starts_with(kTrusted)) continue;
    list += name;
    list += '\0';
  }
  return list;
}

Task<Result<void>> FileSystem::set_extended(RequestContext context, InodeNumber ino, ExtendedChange change) {
  CO_RETURN_IF_ERROR(writable());
  CO_RETURN_IF_ERROR(check_name(change.name));
  CO_ASSIGN_OR_RETURN(InodeRef inode, manager_.get(ino));
  if (change.name == kAccessListName && change.value) {
    change.clear_group_id = !keeps_group_id(context, manager_.attributes(*inode));
  }
  co_return co_await manager_.set_extended(std::move(inode), change, context.request);
}

}  // namespace rmemfs
