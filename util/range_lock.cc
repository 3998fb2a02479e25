#include "util/range_lock.h"

namespace rmemfs {

bool RangeLock::blocked(Entries::iterator entry) {
  for (auto it = entries_.begin(); it != entry; ++it) {
    if (conflict(*it, *entry)) return true;
  }
  return false;
}

void RangeLock::remove(Entries::iterator entry, std::vector<std::pair<Executor*, std::coroutine_handle<>>>& resume) {
  entries_.erase(entry);
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    // An entry without a handle has not suspended yet: its own await_suspend looks again.
    if (it->granted || !it->handle || blocked(it)) continue;
    it->granted = true;
    resume.emplace_back(it->executor, it->handle);
  }
}

void RangeLock::unlock(Entries::iterator entry) {
  std::vector<std::pair<Executor*, std::coroutine_handle<>>> resume;
  {
    MutexLock guard(mutex_);
    remove(entry, resume);
  }
  for (auto& [executor, handle] : resume) executor->post(handle);
}

bool RangeLock::give_up(Entries::iterator entry) {
  std::vector<std::pair<Executor*, std::coroutine_handle<>>> resume;
  {
    MutexLock guard(mutex_);
    if (entry->granted) return false;
    remove(entry, resume);
  }
  for (auto& [executor, handle] : resume) executor->post(handle);
  return true;
}

bool RangeLock::idle() const {
  MutexLock guard(mutex_);
  return entries_.empty();
}

}  // namespace rmemfs
