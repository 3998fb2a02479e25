// Shared by the adapter's files: contexts, conversions and replies. Included nowhere else.
#pragma once

#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "fs/fuse_adapter.h"
#include "fs/fuse_lane.h"

namespace rmemfs::fuse_detail {

// What every operation begins with: who asks, where it runs, what keeps the request's bytes.
struct Call {
  fuse_req_t request;
  FuseAdapter& adapter;
  FuseLane& lane;
  BufferRef buffer;
  RequestContext context;

  std::uint32_t umask = 0;

  Call(fuse_req_t req, Counter counter)
      : request(req),
        adapter(*static_cast<FuseAdapter*>(fuse_req_userdata(req))),
        lane(FuseLane::current()),
        buffer(lane.request_buffer()) {
    const fuse_ctx* caller = fuse_req_ctx(req);
    context = {&lane.connections(), caller->uid, caller->gid, lane.request_number(), caller->pid};
    umask = static_cast<std::uint32_t>(caller->umask);
    lane.connections().counters.add(counter);
  }
  FileOperations& files() const { return adapter.files; }
  // What follows the request's header, as the kernel sent it: libfuse 3.14 does not pass all of it on.
  template <typename Arguments>
  Arguments raw() const {
    Arguments arguments;
    std::memcpy(&arguments, buffer.request().data() + sizeof(fuse_in_header), sizeof arguments);
    return arguments;
  }
  void count(Counter counter, std::uint64_t amount) const { lane.connections().counters.add(counter, amount); }
};

struct stat to_stat(const Attributes& attributes);
fuse_entry_param to_entry(const Call& call, const Attributes& attributes);

inline void reply_error(const Call& call, const Error& error) {
  // An absent name or attribute is an answer, not a failure.
  if (error.code != Errc::kNotFound && error.code != Errc::kNoAttribute) call.count(Counter::kErrors, 1);
  fuse_reply_err(call.request, errno_of(error.code));
}
template <typename T>
void reply_status(const Call& call, const Result<T>& result) {
  if (result.ok())
    fuse_reply_err(call.request, 0);
  else
    reply_error(call, result.error());
}
void reply_attributes(const Call& call, const Result<Attributes>& result);
// Gives the reference back when the kernel did not take the reply (the caller was killed meanwhile).
void reply_entry(const Call& call, const Result<Attributes>& result);

// The operations' families.
void set_name_operations(fuse_lowlevel_ops& table);
void set_attribute_operations(fuse_lowlevel_ops& table);
void set_file_operations(fuse_lowlevel_ops& table);
void set_directory_operations(fuse_lowlevel_ops& table);
void set_extended_operations(fuse_lowlevel_ops& table);

}  // namespace rmemfs::fuse_detail
