#include "transport/session_table.h"

#include <algorithm>

#include "transport/target_stream.h"

namespace rmemfs {

void SessionTable::add(std::shared_ptr<TargetStream> stream) {
  MutexLock lock(mutex_);
  streams_.push_back(std::move(stream));
}

void SessionTable::remove(const TargetStream& stream) {
  std::shared_ptr<TargetStream> last;  // dropped after the lock
  MutexLock lock(mutex_);
  const auto found =
      std::find_if(streams_.begin(), streams_.end(), [&](const auto& entry) { return entry.get() == &stream; });
  if (found == streams_.end()) return;
  last = std::move(*found);
  *found = std::move(streams_.back());
  streams_.pop_back();
  lock.unlock();
}

std::size_t SessionTable::size() const {
  MutexLock lock(mutex_);
  return streams_.size();
}

bool SessionTable::supersede(const TargetStream& stream) {
  const auto mine = stream.introduced();
  std::vector<std::shared_ptr<TargetStream>> older;
  {
    MutexLock lock(mutex_);
    for (const auto& other : streams_) {
      if (other.get() == &stream) continue;
      const auto theirs = other->introduced();
      if (theirs == nullptr || theirs->session.file_system != mine->session.file_system ||
          theirs->session.epoch != mine->session.epoch || theirs->session.lane != mine->session.lane) {
        continue;
      }
      // Only an admitted stream counts: anybody can state a session, but not its key.
      if (!other->admitted()) continue;
      if (theirs->incarnation > mine->incarnation) return false;
      older.push_back(other);
    }
  }
  for (const auto& other : older) other->end();
  for (const auto& other : older) other->wait_idle();
  return true;
}

void SessionTable::end_sessions(const Uuid& file_system, MountEpoch epoch) {
  std::vector<std::shared_ptr<TargetStream>> ended;
  {
    MutexLock lock(mutex_);
    for (const auto& stream : streams_) {
      const auto hello = stream->introduced();
      if (hello == nullptr || hello->session.file_system != file_system || hello->session.epoch >= epoch) continue;
      ended.push_back(stream);
    }
  }
  for (const auto& stream : ended) stream->end();
  for (const auto& stream : ended) stream->wait_idle();
}

void SessionTable::quiesce() {
  std::vector<std::shared_ptr<TargetStream>> all;
  {
    MutexLock lock(mutex_);
    all = streams_;
  }
  for (const auto& stream : all) stream->wait_idle();
}

}  // namespace rmemfs
