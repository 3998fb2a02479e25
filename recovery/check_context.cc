#include "recovery/check_context.h"

#include <algorithm>

namespace rmemfs {
namespace {

template <typename Table, typename Key, typename Member>
auto* find_in(Table& table, Key key, Member member) {
  const auto it = std::lower_bound(table.begin(), table.end(), key,
                                   [member](const auto& entry, Key k) { return entry.*member < k; });
  return it != table.end() && (*it).*member == key ? &*it : nullptr;
}

}  // namespace

InodeEntry* CheckContext::find(InodeNumber ino) { return find_in(inodes, ino.value(), &InodeEntry::ino); }

DirectoryInfo* CheckContext::find_directory(InodeNumber ino) {
  const InodeEntry* entry = find(ino);
  return entry != nullptr && entry->directory != 0 ? &directories[entry->directory - 1] : nullptr;
}

ChunkInfo* CheckContext::find_chunk(ChunkId id) { return find_in(chunks, id, &ChunkInfo::id); }

NodeState* CheckContext::find_node(NodeId id) {
  for (NodeState& node : nodes) {
    if (node.record.id == id) return &node;
  }
  return nullptr;
}

bool CheckContext::decide(const Problem& problem) {
  switch (options.answers) {
    case Answers::kNone:
      return true;
    case Answers::kAll:
      return true;
    case Answers::kSafe:
      if (info_of(problem.code).risk == RepairRisk::kDecision) stopped_ = true;
      return !stopped_;
    case Answers::kAsk:
      return options.ask && options.ask(problem);
  }
  return false;
}

bool CheckContext::found(ProblemCode code, InodeNumber ino, std::string detail) {
  Problem problem{code, ino, {}, std::move(detail), false};
  const bool repair = decide(problem);
  problem.repaired = repair && !read_only();
  ++report.found;
  if (problem.repaired) ++report.repaired, report.changed = true;
  if (report.problems.size() < options.max_problems) report.problems.push_back(std::move(problem));
  return repair;
}

void CheckContext::found_unrepairable(ProblemCode code, InodeNumber ino, std::string detail) {
  ++report.found;
  if (report.problems.size() < options.max_problems)
    report.problems.push_back({code, ino, {}, std::move(detail), false});
}

void CheckContext::repair_failed(std::string sentence) {
  if (!read_only()) --report.repaired;
  if (!report.problems.empty() && report.problems.size() == report.found) report.problems.back().repaired = false;
  notice(std::move(sentence));
}

Result<void> CheckContext::walk(
    std::string_view prefix,
    const std::function<Result<void>(std::string_view key, std::string_view value)>& visit) const {
  auto stored = store->iterate(prefix);
  auto gathered = pending_.lower_bound(prefix);
  const auto in_family = [&] { return gathered != pending_.end() && gathered->first.starts_with(prefix); };
  while (stored->valid() || in_family()) {
    if (in_family() && (!stored->valid() || gathered->first <= stored->key())) {
      if (stored->valid() && gathered->first == stored->key()) stored->next();
      if (gathered->second) RETURN_IF_ERROR(visit(gathered->first, *gathered->second));
      ++gathered;
    } else {
      RETURN_IF_ERROR(visit(stored->key(), stored->value()));
      stored->next();
    }
  }
  return stored->status();
}

Result<std::optional<std::string>> CheckContext::get(const std::string& key) const {
  if (const auto it = pending_.find(key); it != pending_.end()) return it->second;
  return store->get(key);
}

Result<Attributes> CheckContext::attributes(InodeNumber ino) const {
  const std::string key = inode_key(ino);
  ASSIGN_OR_RETURN(const auto value, get(key));
  if (!value) return Error(Errc::kCorrupt, "check", "inode " + std::to_string(ino.value()) + " is missing");
  return decode_inode(key, *value);
}

Result<void> CheckContext::settle() {
  // Every time would be a load per record for nothing.
  if ((++settles_ & 15) == 0 && options.cancelled != nullptr && options.cancelled->load(std::memory_order_relaxed)) {
    return Error(Errc::kCancelled, "check");
  }
  if (pending_.size() < options.batch_modifications || read_only()) return success();
  return write_batch();
}

Result<void> CheckContext::write_batch() {
  if (pending_.empty() || read_only()) return success();
  if (options.before_batch) RETURN_IF_ERROR(options.before_batch(++batches_));
  std::vector<Modification> modifications;
  modifications.reserve(pending_.size());
  for (const auto& [key, value] : pending_) {
    modifications.push_back({value ? ModificationKind::kPut : ModificationKind::kErase, key,
                             value ? std::string_view(*value) : std::string_view()});
  }
  // The watermark stays: recovery has applied the journal, and nothing is committed while fsck runs.
  RETURN_IF_ERROR(store->apply(modifications, watermark));
  pending_.clear();
  return success();
}

Result<void> CheckContext::write_all() {
  if (read_only() || !report.changed) return success();
  RETURN_IF_ERROR(write_batch());
  ASSIGN_OR_RETURN(watermark, store->make_durable());
  return success();
}

void CheckContext::progress(CheckPass pass, std::uint64_t done, std::uint64_t total) {
  if (!options.progress) return;
  const unsigned part =
      total == 0
          ? 1000
          : static_cast<unsigned>(1000.0 * static_cast<double>(std::min(done, total)) / static_cast<double>(total));
  const unsigned stamp = static_cast<unsigned>(pass) * 2000 + part / 5 * 5;
  if (stamp == last_progress_) return;
  last_progress_ = stamp;
  options.progress(pass, part);
}

}  // namespace rmemfs
