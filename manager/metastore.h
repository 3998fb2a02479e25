// The metadata store: RocksDB under an overlay of what is committed in the journal but not yet applied.
//
// It is the journal's Home: WAL off, atomic_flush on, the watermark ("applied") in the same WriteBatch as the data.
// Readers see: overlay first, then RocksDB. Order that makes it exact: a commit is inserted into the overlay before it
// is handed to the applier; the applier writes RocksDB before it drops overlay entries at or below its id.
// Merges (bitmaps, counters) are not readable through the overlay: only their owner (the allocator, in memory) knows
// the current value; get() of such a key gives the applied one.
// Thread-safe. Rank kOverlay. get/iterate may read the local disk.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "journal/home.h"
#include "journal/journal.h"
#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

struct MetastoreOptions {
  std::size_t block_cache_bytes = 64u << 20;
  std::size_t write_buffer_bytes = 64u << 20;
};

// Ascending walk over a key range, overlay merged in. Sees every commit handed over before it was made, maybe later
// ones.
class MetaIterator {
 public:
  virtual ~MetaIterator() = default;
  virtual void seek(std::string_view key) = 0;  // to the first key at or after it
  virtual bool valid() const = 0;               // false at the end or after an error: look at status()
  virtual void next() = 0;
  virtual std::string_view key() const = 0;
  virtual std::string_view value() const = 0;
  virtual Result<void> status() const = 0;
};

class Metastore : public Home {
 public:
  enum class Mode { kCreate, kReadWrite, kReadOnly };
  // `path` is DIR/db. Errors: kStore, kCorrupt, kWrongFileSystem (its uuid is not `file_system`), kNotFound.
  static Result<std::unique_ptr<Metastore>> open(const std::string& path, Mode mode, const Uuid& file_system,
                                                 const MetastoreOptions& options);

  virtual Result<std::optional<std::string>> get(std::string_view key) = 0;
  // Keys in [prefix-range): all that start with `prefix`.
  virtual std::unique_ptr<MetaIterator> iterate(std::string_view prefix) = 0;

  // Puts a committed transaction's puts and erases over the store (between Journal::commit and hand_over).
  virtual void overlay_insert(const TransactionBuilder& transaction, CommitId id) = 0;
  virtual void overlay_drop(CommitId applied) = 0;
  virtual std::size_t overlay_entries() const = 0;

  // For fsck -n and dump on a read-only store: lays replayable modifications (merges too) over it, in memory.
  virtual Result<void> overlay_replay(std::span<const Modification> modifications) = 0;

  virtual std::uint64_t approximate_bytes() const = 0;
};

}  // namespace rmemfs
