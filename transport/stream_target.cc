#include "transport/stream_target.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace rmemfs {

Result<std::unique_ptr<Target>> Target::make_tcp(RegionSource& regions, const Options& options) {
  return StreamTarget::make(TransportKind::kTcp, regions, options);
}
Result<std::unique_ptr<Target>> Target::make_shm(RegionSource& regions, const Options& options) {
  return StreamTarget::make(TransportKind::kShm, regions, options);
}

Result<std::unique_ptr<Target>> StreamTarget::make(TransportKind transport, RegionSource& regions,
                                                   const Options& options) {
  auto target = std::make_unique<StreamTarget>();
  for (unsigned i = 0; i < std::max(options.threads, 1u); ++i) {
    ASSIGN_OR_RETURN(auto worker, TargetWorker::make(transport, regions, target->table_, options));
    target->workers_.push_back(std::move(worker));
  }
  return std::unique_ptr<Target>(std::move(target));
}

void StreamTarget::adopt(UniqueFd stream) {
  // readv() has no flag of its own that keeps it from blocking.
  const int flags = ::fcntl(stream.get(), F_GETFL);
  if (flags < 0 || ::fcntl(stream.get(), F_SETFL, flags | O_NONBLOCK) != 0) return;
  workers_[next_.fetch_add(1, std::memory_order_relaxed) % workers_.size()]->adopt(std::move(stream));
}

}  // namespace rmemfs
