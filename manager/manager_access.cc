// Access times. A read changes one in memory only, when the rule says so, and notes the inode; what is noted is written
// many inodes to a transaction, by a thread of the pool: once kMostNoted are waiting or they take a part of the cache,
// or when something is read kLongestWait after the first of them was noted. Any other change of an inode writes its
// access time along with it.
//
// The kernel asks to read what it has not cached, and answers the other reads itself: so an access time tells of a read
// since the bytes were last fetched, not of each.
//
// An inode that is noted is held, so the cache cannot drop it and load an older time. When kMostWaiting are (the writer
// has fallen behind) no more are noted: their times stay in memory as long as the inode does.
#include <sys/stat.h>

#include <algorithm>
#include <ctime>

#include "manager/manager_impl.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::size_t kMostNoted = 1024;
constexpr std::size_t kMostWaiting = 4 * kMostNoted;
constexpr std::uint64_t kPartOfCache = 8;  // one in so many units
constexpr std::size_t kMostAtOnce = 8;     // inodes to a transaction, whose locks are held together
constexpr std::chrono::seconds kLongestWait{60};
constexpr std::int64_t kDay = 24 * 60 * 60;

// Good enough to tell a day.
std::int64_t seconds_now() {
  timespec ts;
  clock_gettime(CLOCK_REALTIME_COARSE, &ts);
  return ts.tv_sec;
}

// As the kernel's relatime: the first read after a change, or after a day.
bool outdated(const Attributes& a) {
  return a.mtime >= a.atime || a.ctime >= a.atime || seconds_now() - a.atime.seconds >= kDay;
}

}  // namespace

void ManagerImpl::accessed(const InodeRef& inode) {
  const AccessTimes how = access_times_.load(std::memory_order_relaxed);
  if (how.rule == AccessTimes::Rule::kNever) return;
  {
    MutexLock lock(inode->mutex);
    Attributes& a = inode->attributes;
    if (a.mode == 0 || (S_ISDIR(a.mode) && !how.directories)) return;
    if (how.rule == AccessTimes::Rule::kRelative && !outdated(a)) return;
    a.atime = now_timestamp();
    inode->access_newer = true;
    MutexLock noted(access_mutex_);
    const TimePoint now = MonoClock::now();
    if (!inode->access_noted) {
      if (accessed_.size() >= kMostWaiting) return;
      if (accessed_.empty()) accessed_since_ = now;
      accessed_.push_back(inode);
      accessed_units_ += inode->charge.units();
      inode->access_noted = true;
    }
    if (accessed_.empty()) return;  // it is being written
    if (accessed_.size() < kMostNoted && accessed_units_ < cache_.budget_units() / kPartOfCache &&
        now - accessed_since_ < kLongestWait) {
      return;
    }
  }
  if (writing_access_times_.exchange(true, std::memory_order_acq_rel)) return;
  in_background([this] {
    write_access_times();
    writing_access_times_.store(false, std::memory_order_release);
  });
}

void ManagerImpl::write_access_times() {
  std::vector<InodeRef> inodes;
  {
    MutexLock lock(access_mutex_);
    inodes.swap(accessed_);
    accessed_units_ = 0;
  }
  std::sort(inodes.begin(), inodes.end(), [](const auto& a, const auto& b) { return a->ino < b->ino; });
  const std::size_t most = std::clamp<std::size_t>(journal_.max_payload_bytes() / kInodeBytes, 1, kMostAtOnce);
  Result<void> written;
  for (std::span<const InodeRef> rest(inodes); !rest.empty();) {
    const auto some = rest.first(std::min(most, rest.size()));
    rest = rest.subspan(some.size());
    // After a failure the others are let go of without trying.
    if (written.ok()) written = write_access_times(some);
    if (written.ok()) continue;
    for (const InodeRef& inode : some) {
      MutexLock lock(inode->mutex);
      inode->access_noted = false;
    }
  }
  if (!written.ok()) log::debug("access times were not written: {}", written.error().message());
}

// `inodes` in the order of their numbers.
Result<void> ManagerImpl::write_access_times(std::span<const InodeRef> inodes) {
  LoopExecutor loop;
  ASSIGN_OR_RETURN(SlotReservation slots, loop.run(room(inodes.size() * kInodeBytes)));
  TransactionBuilder builder;
  std::vector<Inode*> changed;
  for (const InodeRef& inode : inodes) {
    if (inode == inodes.front())
      inode->mutex.lock();
    else
      inode->mutex.lock_same_rank();
    inode->access_noted = false;
    const bool newer = std::exchange(inode->access_newer, false);
    if (!newer || inode->attributes.mode == 0) continue;  // written by fsync, or purged meanwhile
    put_inode(builder, inode->attributes);
    changed.push_back(inode.get());
  }
  if (!changed.empty()) commit(std::move(slots), builder, 0, changed);
  for (auto it = inodes.rbegin(); it != inodes.rend(); ++it) (*it)->mutex.unlock();
  return success();
}

// For fsync. One that cannot be written fails none.
Task<void> ManagerImpl::write_access_time(InodeRef inode) {
  auto slots = co_await room(kInodeBytes);
  if (!slots.ok()) co_return;
  MutexLock lock(inode->mutex);
  if (inode->attributes.mode == 0 || !std::exchange(inode->access_newer, false)) co_return;
  TransactionBuilder builder;
  put_inode(builder, inode->attributes);
  commit(std::move(*slots), builder, 0, {inode.get()});
}

}  // namespace rmemfs
