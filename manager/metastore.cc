// The store's overlay and its reading order.
//
// Invariants:
//   M1  overlay_ holds, for each key, the newest put or erase that was committed and not yet dropped, with its commit
//   id. M2  An entry leaves overlay_ only by overlay_drop(id), after RocksDB holds all up to that id. So whoever looks
//   into
//       the overlay first and into RocksDB second misses nothing.
//   M3  A walk reads the overlay in bounded pages. A page is read before the RocksDB snapshot that it is merged with:
//   when
//       something was dropped since the snapshot was taken, the snapshot is taken anew (drops_ tells).
//   M4  Ids in pending_ refer to live nodes of overlay_: an entry is erased only through the id that it carries, which
//   is
//       the highest that refers to it, and ids are dropped in ascending order.
#include "manager/metastore.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <vector>

#include "journal/journal_format.h"
#include "manager/meta_format.h"
#include "util/bytes.h"
#include "util/check.h"
#include "util/log.h"
#include "util/mutex.h"

namespace rmemfs {
namespace {

constexpr std::size_t kPageEntries = 128;
constexpr std::size_t kDropBatch = 256;
constexpr std::size_t kMaxPartialMergeBytes = 64u << 10;

// RocksDB's own log: warnings and errors go to ours, and no LOG file is made.
class StoreLogger final : public rocksdb::Logger {
 public:
  StoreLogger() : rocksdb::Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    char line[512];
    std::vsnprintf(line, sizeof line, format, arguments);
    log::warn("metadata store: {}", line);
  }
};

class MetaMerge final : public rocksdb::MergeOperator {
 public:
  bool FullMergeV2(const MergeOperationInput& in, MergeOperationOutput* out) const override {
    out->new_value.clear();
    if (in.existing_value != nullptr) out->new_value.assign(in.existing_value->data(), in.existing_value->size());
    for (const rocksdb::Slice& operand : in.operand_list) {
      if (!apply_merge(in.key.ToStringView(), out->new_value, operand.ToStringView()).ok()) return false;
    }
    return true;
  }
  bool PartialMerge(const rocksdb::Slice&, const rocksdb::Slice& left, const rocksdb::Slice& right, std::string* merged,
                    rocksdb::Logger*) const override {
    if (left.size() + right.size() > kMaxPartialMergeBytes) return false;
    merged->assign(left.data(), left.size());
    merged->append(right.data(), right.size());
    return true;
  }
  const char* Name() const override { return "rmemfs.meta"; }
};

Error store_error(const char* where, const rocksdb::Status& status) {
  log::error("{}: {}", where, status.ToString());
  return Error(status.IsCorruption() ? Errc::kCorrupt : Errc::kStore, where, status.ToString());
}

rocksdb::Options store_options(const MetastoreOptions& options) {
  rocksdb::Options o;
  o.create_if_missing = false;
  o.atomic_flush = true;
  o.avoid_flush_during_shutdown = true;  // the journal's close makes it durable; a crash must look like a crash
  o.merge_operator = std::make_shared<MetaMerge>();
  o.info_log = std::make_shared<StoreLogger>();
  o.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  o.stats_dump_period_sec = 0;
  o.stats_persist_period_sec = 0;
  o.skip_stats_update_on_db_open = true;
  o.skip_checking_sst_file_sizes_on_db_open = true;
  o.max_open_files = 256;
  o.max_background_jobs = 2;
  o.max_manifest_file_size = 4u << 20;
  o.write_buffer_size = options.write_buffer_bytes / 2;
  o.max_write_buffer_number = 4;
  o.db_write_buffer_size = options.write_buffer_bytes;
  // Most keys that are asked for here do not exist (a new file's name): a filter answers without a search.
  o.memtable_whole_key_filtering = true;
  // Keys of one kind come in ascending order, or nearly so: each is inserted from where the last one went.
  o.memtable_insert_with_hint_prefix_extractor.reset(rocksdb::NewFixedPrefixTransform(1));
  o.memtable_prefix_bloom_size_ratio = 0.02;
  o.compression = rocksdb::kNoCompression;
  o.level_compaction_dynamic_level_bytes = true;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  // In partitions of a block: a large table's whole filter is larger than what one shard of the cache keeps, and would
  // be read and checked anew for every name that is looked up.
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.metadata_block_size = 4096;
  table.pin_top_level_index_and_filter = true;
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  o.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return o;
}

// The first key after all that start with `prefix`; empty: there is none.
std::string successor(std::string_view prefix) {
  std::string next(prefix);
  while (!next.empty() && static_cast<unsigned char>(next.back()) == 0xff) next.pop_back();
  if (!next.empty()) next.back() = static_cast<char>(static_cast<unsigned char>(next.back()) + 1);
  return next;
}

struct OverlayEntry {
  std::optional<std::string> value;  // none: erased
  CommitId id;
};
using Overlay = std::map<std::string, OverlayEntry, std::less<>>;

class RocksMetastore final : public Metastore {
 public:
  explicit RocksMetastore(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}
  ~RocksMetastore() override {
    const rocksdb::Status status = db_->Close();
    if (!status.ok()) log::warn("metadata store close: {}", status.ToString());
  }

  Result<void> create(const Uuid& file_system);
  Result<void> load(const Uuid& file_system);

  Result<void> apply(std::span<const Modification> modifications, CommitId applied) override;
  Result<CommitId> make_durable() override;
  CommitId durable_watermark() const override { return opened_at_; }

  Result<std::optional<std::string>> get(std::string_view key) override;
  std::unique_ptr<MetaIterator> iterate(std::string_view prefix) override;
  void overlay_insert(const TransactionBuilder& transaction, CommitId id) override;
  void overlay_drop(CommitId applied) override;
  std::size_t overlay_entries() const override;
  Result<void> overlay_replay(std::span<const Modification> modifications) override;
  std::uint64_t approximate_bytes() const override;

 private:
  friend class Walk;
  Result<std::optional<std::string>> get_stored(std::string_view key);
  void overlay_set(std::string_view key, std::optional<std::string> value, CommitId id);

  const std::unique_ptr<rocksdb::DB> db_;
  CommitId opened_at_;  // constant after load()

  std::atomic<std::uint64_t> applied_{0};  // own synchronization: the applier writes it after the batch is in

  mutable Mutex mutex_{LockRank::kOverlay};
  // Guarded by mutex_:
  Overlay overlay_;
  std::map<CommitId, std::vector<Overlay::iterator>> pending_;
  std::uint64_t drops_ = 0;
};

Result<void> RocksMetastore::create(const Uuid& file_system) {
  rocksdb::WriteBatch batch;
  const auto uuid = as_text(file_system.bytes);
  batch.Put(singleton_key("uuid"), rocksdb::Slice(uuid.data(), uuid.size()));
  batch.Put(singleton_key("applied"), encode_number(0));
  rocksdb::WriteOptions write;
  write.disableWAL = true;
  if (const auto status = db_->Write(write, &batch); !status.ok()) return store_error("metadata store create", status);
  RETURN_IF_ERROR(make_durable());
  return success();
}

Result<void> RocksMetastore::load(const Uuid& file_system) {
  ASSIGN_OR_RETURN(const auto uuid, get_stored(singleton_key("uuid")));
  ASSIGN_OR_RETURN(const auto applied, get_stored(singleton_key("applied")));
  if (!uuid || uuid->size() != file_system.bytes.size() || !applied) {
    return Error(Errc::kCorrupt, "metadata store", "its identity is missing");
  }
  if (std::memcmp(uuid->data(), file_system.bytes.data(), uuid->size()) != 0) {
    return Error(Errc::kWrongFileSystem, "metadata store");
  }
  ASSIGN_OR_RETURN(const auto number, decode_number(*applied));
  opened_at_ = CommitId(number);
  applied_.store(number, std::memory_order_release);
  return success();
}

Result<void> RocksMetastore::apply(std::span<const Modification> modifications, CommitId applied) {
  CHECK(applied.value() >= applied_.load(std::memory_order_relaxed));
  rocksdb::WriteBatch batch;
  const auto slice = [](std::string_view text) { return rocksdb::Slice(text.data(), text.size()); };
  for (const Modification& m : modifications) {
    if (m.key.empty()) return Error(Errc::kCorrupt, "metadata store apply", "a key is empty");
    switch (m.kind) {
      case ModificationKind::kPut:
        batch.Put(slice(m.key), slice(m.value));
        break;
      case ModificationKind::kErase:
        batch.Delete(slice(m.key));
        break;
      case ModificationKind::kMerge:
        batch.Merge(slice(m.key), slice(m.value));
        break;
    }
  }
  batch.Put(singleton_key("applied"), encode_number(applied.value()));
  rocksdb::WriteOptions write;
  write.disableWAL = true;
  if (const auto status = db_->Write(write, &batch); !status.ok()) return store_error("metadata store apply", status);
  applied_.store(applied.value(), std::memory_order_release);
  return success();
}

Result<CommitId> RocksMetastore::make_durable() {
  const CommitId covered(applied_.load(std::memory_order_acquire));
  rocksdb::FlushOptions flush;
  flush.wait = true;
  flush.allow_write_stall = true;
  if (const auto status = db_->Flush(flush); !status.ok()) return store_error("metadata store flush", status);
  return covered;
}

Result<std::optional<std::string>> RocksMetastore::get_stored(std::string_view key) {
  std::string value;
  const auto status = db_->Get({}, rocksdb::Slice(key.data(), key.size()), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) return store_error("metadata store read", status);
  return std::optional<std::string>(std::move(value));
}

Result<std::optional<std::string>> RocksMetastore::get(std::string_view key) {
  {
    MutexLock lock(mutex_);
    if (const auto it = overlay_.find(key); it != overlay_.end()) return it->second.value;
  }
  return get_stored(key);
}

void RocksMetastore::overlay_set(std::string_view key, std::optional<std::string> value, CommitId id) {
  auto it = overlay_.lower_bound(key);
  if (it == overlay_.end() || it->first != key) {
    it = overlay_.emplace_hint(it, std::string(key), OverlayEntry{std::move(value), id});
  } else {
    OverlayEntry& entry = it->second;
    if (entry.id > id) return;  // a later transaction was quicker to get here
    const bool same = entry.id == id;
    entry = OverlayEntry{std::move(value), id};
    if (same) return;
  }
  if (id != CommitId()) pending_[id].push_back(it);
}

void RocksMetastore::overlay_insert(const TransactionBuilder& transaction, CommitId id) {
  std::vector<Modification> modifications;
  const auto parsed = parse_modifications(as_bytes(transaction.payload()), transaction.count(), modifications);
  CHECK(parsed.ok());  // the builder wrote it
  MutexLock lock(mutex_);
  for (const Modification& m : modifications) {
    if (m.kind == ModificationKind::kPut) overlay_set(m.key, std::string(m.value), id);
    if (m.kind == ModificationKind::kErase) overlay_set(m.key, std::nullopt, id);
  }
}

void RocksMetastore::overlay_drop(CommitId applied) {
  // In small batches: readers do not wait for a long drop.
  for (bool more = true; more;) {
    MutexLock lock(mutex_);
    std::size_t dropped = 0;
    while (dropped < kDropBatch && !pending_.empty() && pending_.begin()->first <= applied) {
      const auto first = pending_.begin();
      for (const auto& entry : first->second) {
        if (entry->second.id == first->first) overlay_.erase(entry);
        ++dropped;
      }
      pending_.erase(first);
    }
    if (dropped != 0) ++drops_;
    more = !pending_.empty() && pending_.begin()->first <= applied;
  }
}

std::size_t RocksMetastore::overlay_entries() const {
  MutexLock lock(mutex_);
  return overlay_.size();
}

Result<void> RocksMetastore::overlay_replay(std::span<const Modification> modifications) {
  for (const Modification& m : modifications) {
    std::optional<std::string> value;
    if (m.kind == ModificationKind::kPut) value = std::string(m.value);
    if (m.kind == ModificationKind::kMerge) {
      ASSIGN_OR_RETURN(value, get(m.key));
      if (!value) value.emplace();
      RETURN_IF_ERROR(apply_merge(m.key, *value, m.value));
    }
    MutexLock lock(mutex_);
    overlay_set(m.key, std::move(value), CommitId());
  }
  return success();
}

std::uint64_t RocksMetastore::approximate_bytes() const {
  std::uint64_t files = 0, memory = 0;
  db_->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &files);
  db_->GetIntProperty(rocksdb::DB::Properties::kCurSizeAllMemTables, &memory);
  return files + memory;
}

// A merged walk (M3).
class Walk {
 public:
  Walk(RocksMetastore& store, std::string_view prefix) : store_(store), prefix_(prefix), upper_(successor(prefix)) {
    upper_slice_ = upper_;
  }

  void seek(std::string_view key) {
    positioned_ = true;
    low_ = std::max<std::string_view>(key, prefix_);
    stored_.reset();
    load_page();
    settle();
  }
  void ensure() {
    if (!positioned_) seek(prefix_);
  }
  bool valid() const { return source_ != Source::kNone; }
  void next() {
    CHECK(valid());
    low_ = std::string(key());
    low_ += '\0';
    settle();
  }
  std::string_view key() const {
    return source_ == Source::kOverlay ? std::string_view(page_[position_].first) : stored_->key().ToStringView();
  }
  std::string_view value() const {
    return source_ == Source::kOverlay ? std::string_view(*page_[position_].second) : stored_->value().ToStringView();
  }
  Result<void> status() const {
    if (stored_ && !stored_->status().ok()) return store_error("metadata store walk", stored_->status());
    return success();
  }

 private:
  enum class Source { kNone, kOverlay, kStore };

  void load_page() {
    std::uint64_t drops;
    page_.clear();
    position_ = 0;
    {
      MutexLock lock(store_.mutex_);
      drops = store_.drops_;
      auto it = store_.overlay_.lower_bound(low_);
      const auto end = upper_.empty() ? store_.overlay_.end() : store_.overlay_.lower_bound(upper_);
      // A start beyond the range would never meet its end.
      if (!upper_.empty() && low_ >= upper_) it = end;
      for (; it != end && page_.size() < kPageEntries; ++it) page_.emplace_back(it->first, it->second.value);
      last_page_ = it == end;
    }
    if (stored_ && drops == drops_) return;
    drops_ = drops;
    rocksdb::ReadOptions read;
    read.total_order_seek = true;
    if (!upper_.empty()) read.iterate_upper_bound = &upper_slice_;
    stored_.reset(store_.db_->NewIterator(read));
    stored_->Seek(low_);
  }

  // Goes to the first key at or after low_ that is not erased.
  void settle() {
    for (;;) {
      while (position_ < page_.size() && page_[position_].first < low_) ++position_;
      if (position_ == page_.size() && !last_page_) {
        load_page();
        continue;
      }
      while (stored_->Valid() && stored_->key().ToStringView() < low_) stored_->Next();
      if (!stored_->status().ok()) return void(source_ = Source::kNone);
      const bool here = position_ < page_.size();
      if (!here && !stored_->Valid()) return void(source_ = Source::kNone);
      if (!here || (stored_->Valid() && stored_->key().ToStringView() < page_[position_].first)) {
        return void(source_ = Source::kStore);
      }
      if (page_[position_].second) return void(source_ = Source::kOverlay);
      low_ = page_[position_].first;
      low_ += '\0';
    }
  }

  RocksMetastore& store_;
  const std::string prefix_;
  const std::string upper_;
  rocksdb::Slice upper_slice_;
  bool positioned_ = false;
  std::string low_;  // nothing below it is returned any more
  std::vector<std::pair<std::string, std::optional<std::string>>> page_;
  std::size_t position_ = 0;
  bool last_page_ = false;  // the overlay has nothing of the range after page_
  std::unique_ptr<rocksdb::Iterator> stored_;
  std::uint64_t drops_ = 0;
  Source source_ = Source::kNone;
};

class WalkIterator final : public MetaIterator {
 public:
  WalkIterator(RocksMetastore& store, std::string_view prefix) : walk_(std::make_unique<Walk>(store, prefix)) {}
  void seek(std::string_view key) override { walk_->seek(key); }
  bool valid() const override { return walk_->ensure(), walk_->valid(); }
  void next() override { walk_->ensure(), walk_->next(); }
  std::string_view key() const override { return walk_->key(); }
  std::string_view value() const override { return walk_->value(); }
  Result<void> status() const override { return walk_->status(); }

 private:
  const std::unique_ptr<Walk> walk_;  // positions itself when first looked at
};

std::unique_ptr<MetaIterator> RocksMetastore::iterate(std::string_view prefix) {
  return std::make_unique<WalkIterator>(*this, prefix);
}

}  // namespace

Result<std::unique_ptr<Metastore>> Metastore::open(const std::string& path, Mode mode, const Uuid& file_system,
                                                   const MetastoreOptions& options) {
  const bool exists = ::access((path + "/CURRENT").c_str(), F_OK) == 0;
  if (!exists && mode != Mode::kCreate) return Error(Errc::kNotFound, "metadata store", path);
  if (exists && mode == Mode::kCreate) return Error(Errc::kExists, "metadata store", path);
  // Made here: RocksDB complains in the log when it finds no directory to look into.
  if (mode == Mode::kCreate && ::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return Error(errc_from_errno(errno), "metadata store create", path);
  }
  rocksdb::Options o = store_options(options);
  o.create_if_missing = mode == Mode::kCreate;
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status status =
      mode == Mode::kReadOnly ? rocksdb::DB::OpenForReadOnly(o, path, &raw) : rocksdb::DB::Open(o, path, &raw);
  if (!status.ok()) return store_error("metadata store open", status);
  auto store = std::make_unique<RocksMetastore>(std::unique_ptr<rocksdb::DB>(raw));
  if (mode == Mode::kCreate) RETURN_IF_ERROR(store->create(file_system));
  RETURN_IF_ERROR(store->load(file_system));
  return store;
}

}  // namespace rmemfs
