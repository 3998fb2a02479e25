// Space and nodes: leasing chunks, releasing what a crash left leased, and chunks whose node lost them.
//
// A chunk is leased by one thread at a time, under lease_mutex_, on helper threads only. Its number is the lease's tag.
// A crash between the lease and the commit of the chunk leaves a lease that the chunk map does not know: the next mount
// finds it in the node's list and releases it.
//
// A lost chunk is found again when its node is back with the very region that it was leased as (chunk_map.h): by the
// mount, or by a heartbeat later. The record is committed before anybody may use the chunk.
//
// The chunks of a node that does not answer are suspended: new data goes to the other nodes.
#include <algorithm>
#include <limits>
#include <set>

#include "manager/manager_impl.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr int kSpaceRounds = 64;               // of waiting for space that others keep taking
constexpr std::uint64_t kRoomyPoolChunks = 4;  // lease ahead only where this many chunks are left to lend
// A node that lends nothing for so long counts as silent, and another one is asked: nobody waits the whole deadline for
// each of them. What it lends after all is released by the next mount, as after a crash.
constexpr std::uint32_t kCallTimeoutMs = 3000;
constexpr std::int64_t kShortestCallMs = 200;
constexpr std::size_t kChunkBytes = 8 + 9 + 64;  // of a transaction

Result<void> check_lease(const LeasedRegion& region, std::uint64_t minimum, std::uint64_t maximum) {
  if (region.length_bytes < minimum || region.length_bytes > maximum || region.length_bytes % kBlockBytes != 0 ||
      region.generation == Generation() || region.durability > 2 || region.persist_method > 3) {
    return Error(Errc::kProtocol, "lease");
  }
  return success();
}

}  // namespace

Task<Result<std::vector<SpaceRun>>> ManagerImpl::reserve_space(std::uint64_t blocks, SpaceHint hint, TimePoint limit) {
  std::vector<SpaceRun> runs;
  for (int round = 0; round < kSpaceRounds; ++round) {
    if (allocator_->allocate(blocks, hint, runs)) co_return runs;
    // Freed space first: it waits only for its transaction to be persistent.
    if (const CommitId newest = allocator_->newest_pending(); newest != CommitId()) {
      CO_RETURN_IF_ERROR(co_await journal_.persist(newest));
      allocator_->persisted(journal_.persisted_id());
      if (allocator_->allocate(blocks, hint, runs)) co_return runs;
    }
    const std::uint64_t returns = nodes_->returns();
    const auto lease = [this, blocks, limit] { return lease_until(blocks, limit); };
    const Result<void> leased = co_await pool_.run(lease);
    if (leased.ok()) continue;
    if (allocator_->allocate(blocks, hint, runs)) co_return runs;
    if (allocator_->newest_pending() != CommitId()) continue;  // somebody freed something meanwhile
    if (leased.error().code != Errc::kUnreachable) co_return leased.error();
    const bool returned = co_await nodes_->await_return(returns, limit);
    if (!returned) co_return leased.error();
  }
  co_return Error(Errc::kNoSpace, "write");
}

std::uint32_t ManagerImpl::call_timeout_ms(TimePoint limit) const {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(limit - MonoClock::now()).count();
  const std::int64_t longest = std::min(nodes_->deadline_ms(), kCallTimeoutMs);
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(left, std::min(kShortestCallMs, longest), longest));
}

Result<void> ManagerImpl::lease_until(std::uint64_t free_blocks, TimePoint limit) {
  std::lock_guard lock(lease_mutex_);
  bool refreshed = false;
  while (allocator_->free_blocks() < free_blocks) {
    RETURN_IF_ERROR(writable());
    bool silent = nodes_->any_silent();
    ASSIGN_OR_RETURN(const bool leased, lease_somewhere(silent, limit));
    if (leased) continue;
    if (refreshed) return Error(silent ? Errc::kUnreachable : Errc::kNoSpace, "lease");
    // What the nodes said last may be old: memory was given back since, or a node came back empty.
    for (const auto& node : nodes_->nodes()) {
      if (!node->answers()) continue;
      if (!nodes_->describe(*node, call_timeout_ms(limit)).ok()) continue;  // noted there; leasing goes on without it
    }
    refreshed = true;
  }
  return success();
}

// From the node with most room. False when none has any; `silent` is set when one did not answer.
Result<bool> ManagerImpl::lease_somewhere(bool& silent, TimePoint limit) {
  std::vector<Node*> candidates;
  for (const auto& node : nodes_->nodes()) {
    if (node->answers() && node->free_bytes.load(std::memory_order_relaxed) >= kMinChunkBytes)
      candidates.push_back(node.get());
  }
  std::sort(candidates.begin(), candidates.end(), [](const Node* a, const Node* b) {
    return a->free_bytes.load(std::memory_order_relaxed) > b->free_bytes.load(std::memory_order_relaxed);
  });
  for (Node* node : candidates) {
    if (!node->answers()) continue;  // it fell silent while another one was asked
    const Result<void> outcome = lease_from(*node, limit);
    if (outcome.ok()) return true;
    if (outcome.error().code == Errc::kFenced) {
      fenced();
      return outcome.error();
    }
    if (outcome.error().code == Errc::kJournalFull || outcome.error().code == Errc::kReadOnly) return outcome.error();
    silent |= outcome.error().code == Errc::kUnreachable || outcome.error().code == Errc::kDeadline;
  }
  return false;
}

// Waits for the journal on this helper thread.
Result<CommitId> ManagerImpl::commit_blocking(TransactionBuilder& builder) {
  LoopExecutor loop;
  ASSIGN_OR_RETURN(SlotReservation slots, loop.run(room(builder.payload_bytes())));
  return commit(std::move(slots), builder, 0, {});
}

Result<void> ManagerImpl::lease_from(Node& node, TimePoint limit) {
  const ChunkId id(next_chunk_.load(std::memory_order_relaxed));
  auto leased = node.client->lease(nodes_->identity(), superblock_.chunk_bytes, kMinChunkBytes, id.value(),
                                   call_timeout_ms(limit));
  if (!leased.ok()) {
    if (leased.error().code == Errc::kNoSpace)
      node.free_bytes.store(0, std::memory_order_relaxed);
    else
      nodes_->note(node, leased.error());
    return std::move(leased).error();
  }
  nodes_->note(node, success());
  // Before the chunk counts as free space: the same bytes are not reported twice.
  const std::uint64_t free = node.free_bytes.load(std::memory_order_relaxed);
  node.free_bytes.store(free - std::min(free, leased->length_bytes), std::memory_order_relaxed);
  RETURN_IF_ERROR(check_lease(*leased, kMinChunkBytes, superblock_.chunk_bytes));
  ChunkRecord record;
  record.node = node.id;
  record.region.id = leased->id;
  record.region.generation = leased->generation;
  record.region.key = leased->key;
  record.region.length_bytes = leased->length_bytes;
  record.region.address = leased->address;
  record.region.rkey = leased->rkey;
  record.region.durability = {static_cast<Durability>(leased->durability),
                              static_cast<PersistMethod>(leased->persist_method)};
  TransactionBuilder builder;
  builder.put(chunk_key(id), encode(record));
  builder.put(singleton_key("next_chunk"), encode_number(id.value() + 1));
  const auto committed = commit_blocking(builder);
  if (!committed.ok()) {
    const auto released = node.client->release(nodes_->identity(), leased->id, nodes_->deadline_ms());
    if (!released.ok()) log::warn("a region stays leased until the next mount: {}", released.error().message());
    return committed.error();
  }
  RETURN_IF_ERROR(chunks_.add(id, record));
  next_chunk_.store(id.value() + 1, std::memory_order_release);
  RETURN_IF_ERROR(allocator_->add_chunk(id, static_cast<std::uint32_t>(leased->length_bytes / kBlockBytes), {}));
  nodes_->settle(node);
  return success();
}

// Keeps about one chunk free, so that a write seldom waits for a lease; not where it would take the last of a small
// pool.
void ManagerImpl::lease_ahead() {
  const std::uint64_t chunk_blocks = superblock_.chunk_bytes / kBlockBytes;
  if (allocator_->free_blocks() >= chunk_blocks) return;
  if (nodes_->lendable_bytes() < kRoomyPoolChunks * superblock_.chunk_bytes) return;
  if (leasing_ahead_.exchange(true, std::memory_order_acq_rel)) return;
  in_background([this, chunk_blocks] {
    const auto leased = lease_until(chunk_blocks, kNoDeadline);
    if (!leased.ok()) log::debug("leasing ahead: {}", leased.error().message());
    leasing_ahead_.store(false, std::memory_order_release);
  });
}

void ManagerImpl::reconcile_leases(Node& node) {
  // No lease is under way while this runs: what the node lists and the chunk map does not know is nobody's.
  std::lock_guard lock(lease_mutex_);
  const auto listed = node.client->list(nodes_->identity(), nodes_->deadline_ms());
  if (!listed.ok()) {
    log::warn("leases on {} were not compared: {}", node.address, listed.error().message());
    return;
  }
  // Lost chunks too (R3). A region's number means something within its pool's generation only. Whatever node a chunk is
  // on: should two addresses lead to one pool after all (S5), neither takes the other's chunks for strangers.
  std::set<std::pair<RegionId, Generation>> known;
  for (const Chunk* chunk : chunks_.all()) known.emplace(chunk->region.id, chunk->region.generation);
  std::size_t released = 0;
  for (const LeasedRegion& region : *listed) {
    if (known.contains({region.id, region.generation})) continue;
    const auto outcome = node.client->release(nodes_->identity(), region.id, nodes_->deadline_ms());
    if (!outcome.ok()) {
      log::warn("a region on {} stays leased: {}", node.address, outcome.error().message());
      return;
    }
    ++released;
  }
  if (released != 0) log::info("{} regions on {} that a crash left leased are released", released, node.address);
}

void ManagerImpl::in_background(std::function<void()> work) {
  {
    std::lock_guard lock(background_mutex_);
    if (closing_) return;
    ++background_;
  }
  pool_.submit([this, work = std::move(work)] {
    work();
    std::lock_guard lock(background_mutex_);
    --background_;
    background_done_.notify_all();
  });
}

void ManagerImpl::chunk_lost(const Chunk& chunk) {
  Chunk* const mine = chunks_.find(chunk.id);
  if (mine != nullptr && lose(*mine)) record_lost({mine});
}

bool ManagerImpl::lose(Chunk& chunk) {
  MutexLock lock(lost_mutex_);
  if (!chunks_.mark_lost(chunk)) return false;
  allocator_->drop_chunk(chunk.id);
  return true;
}

void ManagerImpl::suspend_chunks(const Node& node, bool suspended) {
  for (const Chunk* chunk : chunks_.all()) {
    if (chunk->node != node.id) continue;
    if (suspended) {
      allocator_->suspend_chunk(chunk->id);
    } else {
      allocator_->resume_chunk(chunk->id);
    }
  }
}

void ManagerImpl::record_lost(std::vector<Chunk*> lost) {
  in_background([this, lost = std::move(lost)] {
    for (const Chunk* chunk : lost) {
      log::error("chunk {} on {} is lost: its node came back without it", chunk->id.value(), address(chunk->node));
      std::lock_guard lock(state_mutex_);
      TransactionBuilder builder;
      builder.put(chunk_key(chunk->id), encode(ChunkRecord{chunk->node, chunk->region, chunk->state.load()}));  // N6
      const auto committed = commit_blocking(builder);
      // Not recorded, it is found lost again by the next mount.
      if (!committed.ok()) log::warn("a lost chunk was not recorded: {}", committed.error().message());
    }
  });
}

// Invariants R1 to R5 are in chunk_map.h. Costs nothing while nothing is lost, and a lost chunk whose generation is
// back without its region is asked for once.
void ManagerImpl::find_again(Node& node, Generation generation) {
  if (chunks_.lost_bytes() == 0) return;
  std::vector<Chunk*> candidates;
  for (Chunk* chunk : chunks_.all()) {
    if (chunk->node == node.id && chunk->region.generation == generation &&
        chunk->state.load(std::memory_order_acquire) == ChunkState::kLost && !node.gone.contains(chunk->id.value()))
      candidates.push_back(chunk);
  }
  if (candidates.empty()) return;
  const std::uint32_t timeout_ms = std::min(nodes_->deadline_ms(), kCallTimeoutMs);
  // Before the list (R5): this pool may be one that this mount has not met yet.
  if (const auto outcome = node.client->fence(nodes_->identity(), timeout_ms); !outcome.ok()) {
    if (outcome.error().code == Errc::kFenced) return fenced();
    return log::debug("{}: lost chunks are looked for later: {}", node.address, outcome.error().message());
  }
  const auto listed = node.client->list(nodes_->identity(), timeout_ms);
  if (!listed.ok())
    return log::debug("{}: lost chunks are looked for later: {}", node.address, listed.error().message());

  std::unordered_set<std::uint64_t> taken;  // regions of live chunks (R4)
  for (const Chunk* chunk : chunks_.all()) {
    if (chunk->node == node.id && chunk->region.generation == generation &&
        chunk->state.load(std::memory_order_acquire) == ChunkState::kActive)
      taken.insert(chunk->region.id.value());
  }
  std::vector<Chunk*> found;
  for (Chunk* chunk : candidates) {
    const bool held = std::any_of(listed->begin(), listed->end(), [chunk](const LeasedRegion& lease) {
      return holds_chunk(lease, chunk->id, chunk->region);
    });
    if (held && taken.insert(chunk->region.id.value()).second)
      found.push_back(chunk);
    else
      node.gone.insert(chunk->id.value());
  }
  for (std::size_t i = 0; i < found.size();) {
    std::lock_guard lock(state_mutex_);
    // As many as one transaction holds: all of them, in any journal of a usual size.
    const std::size_t most = std::max<std::size_t>(journal_.max_payload_bytes() / kChunkBytes, 1);
    const std::span<Chunk*> part = std::span(found).subspan(i, std::min(most, found.size() - i));
    TransactionBuilder builder;
    for (const Chunk* chunk : part) {
      builder.put(chunk_key(chunk->id), encode(ChunkRecord{chunk->node, chunk->region, ChunkState::kActive}));
    }
    if (const auto committed = commit_blocking(builder); !committed.ok()) {
      return log::warn("{}: chunks that are back stay lost for now: {}", node.address, committed.error().message());
    }
    for (Chunk* chunk : part) {
      log::info("chunk {} is back: {} has it again, with its contents", chunk->id.value(), node.address);
      chunk->used.store(false);  // all lanes prepare for it again
      MutexLock change(lost_mutex_);
      chunks_.mark_found(*chunk);
      allocator_->restore_chunk(chunk->id);
    }
    i += part.size();
  }
  if (found.empty()) return;
  const bool all = std::none_of(candidates.begin(), candidates.end(), [](const Chunk* chunk) {
    return chunk->state.load(std::memory_order_relaxed) == ChunkState::kLost;
  });
  NodeHealth empty = NodeHealth::kRestartedEmpty;
  if (all) node.health.compare_exchange_strong(empty, NodeHealth::kAlive);
}

void ManagerImpl::compare_generation(Node& node, Generation generation, std::uint64_t chunks_before) {
  if (node.compared == generation) return;
  node.compared = generation;
  node.gone.clear();
  std::vector<Chunk*> lost;
  for (Chunk* chunk : chunks_.all()) {
    // A chunk leased after the question was asked may be of a newer generation than the answer.
    if (chunk->node != node.id || chunk->id.value() >= chunks_before || chunk->region.generation == generation)
      continue;
    if (lose(*chunk)) lost.push_back(chunk);
  }
  if (lost.empty()) return;
  node.health.store(NodeHealth::kRestartedEmpty, std::memory_order_relaxed);
  record_lost(std::move(lost));
}

SpaceStatistics ManagerImpl::space() {
  SpaceStatistics s;
  // Read in this order, a lease under way is counted once or not at all.
  const std::uint64_t free_blocks = allocator_->free_blocks() + allocator_->pending_blocks();
  const std::uint64_t lendable = nodes_->lendable_bytes();
  s.lost_bytes = chunks_.lost_bytes();
  s.total_bytes = chunks_.leased_bytes() - s.lost_bytes + lendable;
  s.free_bytes = free_blocks * kBlockBytes + lendable;
  s.inodes = inodes_.load(std::memory_order_relaxed);
  return s;
}

std::vector<NodeStatus> ManagerImpl::nodes() {
  const auto chunks = chunks_.all();
  const auto now = MonoClock::now().time_since_epoch();
  std::vector<NodeStatus> out;
  for (const auto& node : nodes_->nodes()) {
    NodeStatus s;
    s.id = node->id;
    s.address = node->address;
    s.health = node->health.load(std::memory_order_relaxed);
    s.generation = Generation(node->generation.load(std::memory_order_relaxed));
    s.pool_bytes = node->pool_bytes.load(std::memory_order_relaxed);
    s.free_bytes = node->free_bytes.load(std::memory_order_relaxed);
    s.durability = {static_cast<Durability>(node->durability.load(std::memory_order_relaxed)),
                    static_cast<PersistMethod>(node->persist_method.load(std::memory_order_relaxed))};
    s.pool_in_file = node->pool_in_file.load(std::memory_order_relaxed);
    const auto answered = MonoClock::duration(node->answered_at.load(std::memory_order_relaxed));
    s.seconds_since_answer = answered.count() == 0 ? std::numeric_limits<double>::infinity()
                                                   : std::chrono::duration<double>(now - answered).count();
    for (const Chunk* chunk : chunks) {
      if (chunk->node != node->id) continue;
      const bool is_lost = chunk->state.load(std::memory_order_relaxed) == ChunkState::kLost;
      ++s.chunks;
      (is_lost ? s.lost_bytes : s.leased_bytes) += chunk->region.length_bytes;
      if (!is_lost) s.used_bytes += allocator_->used_blocks(chunk->id) * kBlockBytes;
    }
    out.push_back(std::move(s));
  }
  return out;
}

std::string ManagerImpl::address(NodeId node) const {
  const Node* found = nodes_->find(node);
  return found == nullptr ? std::string() : found->address;
}

NodeHealth ManagerImpl::health(NodeId node) const {
  const Node* found = nodes_->find(node);
  return found == nullptr ? NodeHealth::kUnknown : found->health.load(std::memory_order_relaxed);
}

TimePoint ManagerImpl::operation_deadline(NodeId node, TimePoint limit) const {
  // For a node that is back but was not asked yet, and for a request that waited long until it may go on.
  constexpr auto kMoment = std::chrono::milliseconds(200);
  const Duration patience = std::chrono::milliseconds(nodes_->deadline_ms());
  const TimePoint least = MonoClock::now() + std::min<Duration>(kMoment, patience);
  const Node* found = nodes_->find(node);
  if (found == nullptr || found->answers()) return std::max(limit, least);
  const TimePoint answered{Duration(found->answered_at.load(std::memory_order_relaxed))};
  return std::max(std::min(limit, answered + patience), least);
}

}  // namespace rmemfs
