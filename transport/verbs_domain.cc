#include "transport/verbs_domain.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "util/clock.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::size_t kMaxThreads = 4;  // that pin memory for one region
constexpr Duration kTellEvery = std::chrono::seconds(2);

}  // namespace

Result<std::shared_ptr<VerbsDomain>> VerbsDomain::make(ibv_context* context, std::uint64_t piece_bytes) {
  ibv_device_attr attributes{};
  if (::ibv_query_device(context, &attributes) != 0) {
    return Error(errc_from_errno(errno), "RDMA device", ::ibv_get_device_name(context->device));
  }
  while (piece_bytes > attributes.max_mr_size) piece_bytes /= 2;
  std::shared_ptr<VerbsDomain> domain(new VerbsDomain(context, piece_bytes));
  domain->attributes_ = attributes;
  domain->pd_.reset(::ibv_alloc_pd(context));
  if (domain->pd_ == nullptr) return Error(errc_from_errno(errno), "protection domain");
  while (domain->instance_ == 0) fill_random(reinterpret_cast<std::byte*>(&domain->instance_), 8);
  return domain;
}

Result<MemoryRegistration> VerbsDomain::register_messages(std::span<std::byte> memory) {
  MemoryRegistration registration(::ibv_reg_mr(pd_.get(), memory.data(), memory.size(), IBV_ACCESS_LOCAL_WRITE));
  if (registration == nullptr) return Error(Errc::kNoMemory, "memory registration", std::strerror(errno));
  return registration;
}

Result<void> VerbsDomain::form(RegionId id, TargetRegion& region, std::vector<MemoryRegistration>& pieces,
                               verbs::Reply& place) {
  const std::uint64_t length = region.memory.size();
  const std::uint64_t size = verbs::piece_size(length, piece_bytes_);
  if (size > attributes_.max_mr_size) return Error(Errc::kNotSupported, "memory registration", "max_mr_size");
  const std::size_t count = verbs::pieces_of(length, size);
  const int access = region.writable ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |
                                           IBV_ACCESS_REMOTE_ATOMIC
                                     : IBV_ACCESS_REMOTE_READ;
  pieces.resize(count);
  std::atomic<std::size_t> next{0}, done{0};
  std::atomic<int> failure{0};
  std::atomic<MonoClock::rep> tell_at{(MonoClock::now() + kTellEvery).time_since_epoch().count()};
  const auto work = [&] {
    for (std::size_t i; failure == 0 && (i = next++) < count;) {
      std::byte* const begin = region.memory.data() + i * size;
      pieces[i].reset(::ibv_reg_mr(pd_.get(), begin, std::min(size, length - i * size), access));
      if (pieces[i] == nullptr) failure = errno;
      const std::size_t ready = ++done;
      const auto now = MonoClock::now().time_since_epoch().count();
      auto due = tell_at.load();
      if (ready < count && now >= due && tell_at.compare_exchange_strong(due, now + kTellEvery.count())) {
        log::info("region {}: {} of {} MiB are registered for RDMA", id.value(), ready * (size >> 20), length >> 20);
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (std::size_t i = 1; i < std::min(count, kMaxThreads); ++i) helpers.emplace_back(work);
    work();
  }
  if (failure != 0) {
    log::error("region {} cannot be registered for RDMA with {}: {}{}", id.value(),
               ::ibv_get_device_name(context_->device), std::strerror(failure),
               failure == ENOMEM ? " (is the limit on locked memory, ulimit -l, too low?)" : "");
    return Error(failure == ENOMEM ? Errc::kNoMemory : Errc::kNotSupported, "memory registration");
  }
  place.ok = true;
  place.writable = region.writable;
  place.length = length;
  place.piece_bytes = size;
  for (std::size_t i = 0; i < count; ++i) {
    place.pieces.push_back({reinterpret_cast<std::uint64_t>(region.memory.data() + i * size), pieces[i]->rkey});
  }
  return success();
}

Result<verbs::Reply> VerbsDomain::attach(RegionId id, const std::shared_ptr<TargetRegion>& region) {
  std::unique_lock lock(mutex_);
  formed_.wait(lock, [&] {
    const auto found = regions_.find(id);
    return found == regions_.end() || !found->second.forming;
  });
  Registered& entry = regions_[id];
  if (region->revoked()) {  // D2
    if (entry.region == nullptr) regions_.erase(id);
    return Error(Errc::kRegionLost, "region");
  }
  if (entry.region == region) return entry.place;
  entry = Registered{};  // another one by this name was of an earlier generation
  entry.region = region;
  entry.forming = true;
  lock.unlock();
  std::vector<MemoryRegistration> pieces;
  verbs::Reply place;
  const Result<void> made = form(id, *region, pieces, place);
  const bool lost = region->revoked();
  if (!made.ok() || lost) pieces.clear();  // deregistered before anybody who waits goes on
  lock.lock();
  if (!made.ok() || lost) {
    regions_.erase(id);
  } else {
    entry.pieces = std::move(pieces);
    entry.place = place;
    entry.forming = false;
  }
  formed_.notify_all();
  if (!made.ok()) return made.error();
  if (lost) return Error(Errc::kRegionLost, "region");
  return place;
}

bool VerbsDomain::empty() const {
  std::lock_guard lock(mutex_);
  return regions_.empty();
}

void VerbsDomain::drop_revoked() {
  std::unique_lock lock(mutex_);
  formed_.wait(lock, [&] {
    return std::none_of(regions_.begin(), regions_.end(),
                        [](const auto& entry) { return entry.second.forming && entry.second.region->revoked(); });
  });
  std::erase_if(regions_, [](const auto& entry) { return !entry.second.forming && entry.second.region->revoked(); });
}

}  // namespace rmemfs
