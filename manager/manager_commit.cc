// What every transaction shares: room in the journal, the commit itself, and the loading of layouts.
#include <algorithm>

#include "manager/manager_impl.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kInodeNumberBatch = 4096;

void raise(std::atomic<std::uint64_t>& number, std::uint64_t to) {
  std::uint64_t now = number.load(std::memory_order_relaxed);
  while (now < to && !number.compare_exchange_weak(now, to, std::memory_order_release)) {}
}

}  // namespace

void StoreFailure::set(std::string reason) {
  std::lock_guard lock(mutex_);
  if (failed()) return;
  reason_ = std::move(reason);
  failed_.store(true, std::memory_order_release);
}

std::string StoreFailure::reason() const {
  std::lock_guard lock(mutex_);
  return reason_;
}

Result<void> ManagerImpl::readable() const {
  if (fenced_.load(std::memory_order_acquire)) return Error(Errc::kFenced, "manager");
  return success();
}

Result<void> ManagerImpl::writable() const {
  RETURN_IF_ERROR(readable());
  if (failure_->failed()) return Error(Errc::kReadOnly, "manager");
  return success();
}

Task<Result<SlotReservation>> ManagerImpl::room(std::size_t bytes) {
  CO_RETURN_IF_ERROR(writable());
  SlotReservation slots = journal_.try_reserve(bytes);
  if (slots) co_return slots;
  co_return co_await journal_.reserve(bytes);
}

CommitId ManagerImpl::commit(SlotReservation slots, TransactionBuilder& builder, std::uint64_t request,
                             std::span<Inode* const> inodes) {
  CHECK(builder.payload_bytes() <= slots.capacity_bytes());
  const CommitId id = journal_.commit(std::move(slots), builder, request);
  metastore_.overlay_insert(builder, id);
  for (Inode* inode : inodes) {
    if (inode != nullptr) raise(inode->last_commit, id.value());
  }
  journal_.hand_over(id);
  return id;
}

CommitId ManagerImpl::commit_with_number(SlotReservation slots, TransactionBuilder& builder, std::uint64_t request,
                                         std::initializer_list<Inode*> inodes, InodeNumber ino) {
  if (ino.value() < inode_limit_.load(std::memory_order_acquire)) {
    return commit(std::move(slots), builder, request, inodes);
  }
  // Held over the commit: a smaller counter never gets a later id than a larger one.
  MutexLock lock(number_mutex_);
  const std::uint64_t limit = inode_limit_.load(std::memory_order_relaxed);
  if (ino.value() < limit) return commit(std::move(slots), builder, request, inodes);
  const std::uint64_t raised = ino.value() + kInodeNumberBatch;
  builder.put(singleton_key("next_inode"), encode_number(raised));
  const CommitId id = commit(std::move(slots), builder, request, inodes);
  inode_limit_.store(raised, std::memory_order_release);
  return id;
}

Task<Result<void>> ManagerImpl::settle(CommitId id) {
  if (!options_.sync_commit || id == CommitId()) co_return success();
  co_return co_await journal_.persist(id);
}

Result<Layout*> ManagerImpl::layout_of(Inode& inode) {
  if (inode.layout) return &*inode.layout;
  Layout layout;
  std::uint64_t end = 0;
  std::string prefix = "E";
  prefix.append(inode_key(inode.ino), 1);
  const auto records = metastore_.iterate(prefix);
  for (; records->valid(); records->next()) {
    ASSIGN_OR_RETURN(const Extent extent, decode_extent(records->key(), records->value()));
    const Chunk* chunk = chunks_.find(extent.chunk);
    if (extent.file_offset < end || chunk == nullptr || chunk->region.length_bytes < extent.length ||
        extent.chunk_offset > chunk->region.length_bytes - extent.length) {
      return Error(Errc::kCorrupt, "layout", "inode " + std::to_string(inode.ino.value()));
    }
    end = extent.end();
    layout.emplace_hint(layout.end(), extent.file_offset, extent);
  }
  RETURN_IF_ERROR(records->status());
  inode.layout = std::move(layout);
  inode.charge_layout();
  return &*inode.layout;
}

void put_inode(TransactionBuilder& builder, const Attributes& attributes) {
  builder.put(inode_key(attributes.ino), encode(attributes));
}

SpaceRun run_of(const Extent& extent) {
  return {extent.chunk, static_cast<std::uint32_t>(extent.chunk_offset / kBlockBytes),
          static_cast<std::uint32_t>(extent.length / kBlockBytes)};
}

void merge_bitmaps(TransactionBuilder& builder, std::span<const SpaceRun> runs, bool set) {
  std::vector<SpaceRun> sorted(runs.begin(), runs.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.chunk < b.chunk; });
  std::vector<BlockRun> operands;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    operands.push_back({sorted[i].first, sorted[i].count, set});
    if (i + 1 < sorted.size() && sorted[i + 1].chunk == sorted[i].chunk) continue;
    builder.merge(bitmap_key(sorted[i].chunk), encode_runs(operands));
    operands.clear();
  }
}

InodeSetLock::InodeSetLock(std::initializer_list<Inode*> inodes) {
  CHECK(inodes.size() <= held_.size());
  for (Inode* inode : inodes) {
    if (inode != nullptr && std::find(held_.begin(), held_.begin() + count_, inode) == held_.begin() + count_) {
      held_[count_++] = inode;
    }
  }
  std::sort(held_.begin(), held_.begin() + count_, [](const Inode* a, const Inode* b) { return a->ino < b->ino; });
  for (std::size_t i = 0; i < count_; ++i) {
    if (i == 0)
      held_[i]->mutex.lock();
    else
      held_[i]->mutex.lock_same_rank();
  }
}

InodeSetLock::~InodeSetLock() {
  while (count_ != 0) held_[--count_]->mutex.unlock();
}

}  // namespace rmemfs
