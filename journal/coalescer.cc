#include "journal/coalescer.h"

#include <algorithm>

namespace rmemfs {

void Coalescer::add(std::span<const Modification> modifications) {
  for (const Modification& modification : modifications) {
    const auto [at, fresh] = index_.try_emplace(modification.key, static_cast<std::uint32_t>(entries_.size()));
    if (fresh) entries_.push_back({modification.key, {}, {}});
    Entry& entry = entries_[at->second];
    if (modification.kind != ModificationKind::kMerge) {
      entry.base = modification.kind == ModificationKind::kPut ? Base::kPut : Base::kErase;
      entry.value = modification.value;
      entry.merged = false;
      entry.joined = nullptr;
      continue;
    }
    if (!entry.merged) {
      entry.merged = true;
      entry.operand = modification.value;
      continue;
    }
    if (entry.joined == nullptr) entry.joined = &strings_.emplace_back(entry.operand);
    entry.joined->append(modification.value);
    entry.operand = *entry.joined;
  }
}

std::span<const Modification> Coalescer::coalesced() {
  out_.clear();
  for (const Entry& entry : entries_) {
    if (entry.base == Base::kPut) out_.push_back({ModificationKind::kPut, entry.key, entry.value});
    if (entry.base == Base::kErase) out_.push_back({ModificationKind::kErase, entry.key, {}});
    if (entry.merged) out_.push_back({ModificationKind::kMerge, entry.key, entry.operand});
  }
  // Stable: a key's merges stay behind its put.
  std::stable_sort(out_.begin(), out_.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
  return out_;
}

void Coalescer::clear() {
  index_.clear();
  entries_.clear();
  strings_.clear();
  out_.clear();
}

}  // namespace rmemfs
