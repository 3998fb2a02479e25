// Between libfuse's low-level operations and FileOperations: unpack a request, call, reply. The only place where an
// Error becomes an errno.
//
// Each operation runs in the lane that read the request; a Task that suspends is resumed there. Nothing is held across
// a reply, because the reply may end the inode's life. A reply that carried references and could not be delivered gives
// them back.
//
// What the kernel is told (all changes pass through this mount, so its caches may be trusted):
//   - attributes, entries and absent names are valid for the timeouts; data stays cached across open;
//   - OPEN, OPENDIR, CREATE, FLUSH, ACCESS and the like are answered "not implemented" once, after which the kernel
//     does without: an inode lives by its lookup count, so open files need no handle (a create is a MKNOD, a close
//     costs nothing). The errors of writes are known when write() returns, those of mappings when the kernel writes
//     them back;
//   - access lists and the umask are ours to apply (FUSE_POSIX_ACL, FUSE_DONT_MASK); the kernel checks permissions by
//     what it reads as system.posix_acl_access, and remembers that there is none;
//   - set-user-ID bits are ours to clear (FUSE_HANDLE_KILLPRIV_V2, see FuseLane::write_reply): WRITE and SETATTR say
//     when, and chown and fallocate always do but for root. Before the first write after attributes came from here the
//     kernel asks for security.capability (GETXATTR), and nothing it can be told keeps it from that but "there are no
//     attributes in this mount", which is -o noxattr: what it remembers of an inode (S_NOSEC) it forgets with them;
//   - "." can be looked up, so file handles stay good after the kernel has forgotten the inode.
#pragma once

#include <cstdint>
#include <functional>

#include "fs/file_operations.h"

struct fuse_lowlevel_ops;

namespace rmemfs {

struct FuseAdapterOptions {
  double attribute_timeout_s = 3600;
  double entry_timeout_s = 3600;
  bool extended = true;      // extended attributes
  bool access_lists = true;  // never without `extended`
};

class FuseAdapter {
 public:
  FuseAdapter(FileOperations& file_system, const FuseAdapterOptions& adapter_options)
      : files(file_system), options(adapter_options) {}

  // The operations' table; the session's userdata is a FuseAdapter.
  static const fuse_lowlevel_ops& operations();

  FileOperations& files;
  const FuseAdapterOptions options;
  // Known after INIT, constant afterwards; INIT is answered before any other request is read.
  bool initialized = false;
  bool stateless_open = true, stateless_opendir = true;
};

}  // namespace rmemfs
