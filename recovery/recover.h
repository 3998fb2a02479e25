// Mount recovery: from a metadata directory, clean or crashed, to an open store and journal. Runs before a mount
// serves. Blocks. Does not look at files: its cost is the journal's, never the tree's.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "journal/journal.h"
#include "journal/journal_reader.h"
#include "manager/metastore.h"
#include "manager/superblock.h"
#include "util/pmem.h"
#include "util/result.h"

namespace rmemfs {

struct RecoveredStore {
  Superblock superblock;                 // epoch already raised and stored when opened for writing
  std::unique_ptr<Metastore> metastore;  // declared before the journal: the journal's threads use it
  std::unique_ptr<Journal> journal;      // null when read_only
  RecoveryReport report;
};

// Puts something between the journal and its memory: how tests let a sync fail.
using MemoryFilter = std::function<std::unique_ptr<PersistentMemory>(std::unique_ptr<PersistentMemory>)>;

struct RecoverOptions {
  MetastoreOptions metastore;
  JournalOptions journal;
  bool read_only = false;       // nothing is written: the journal's transactions are laid over the store in memory
  bool accept_gap = false;      // fsck's decision
  bool force_pmem = false;      // measurement: treat the journal file as persistent memory
  bool raise_epoch = true;      // a mount does; fsck does not
  MemoryFilter journal_memory;  // none unless given
};

// The caller holds the directory's lock. Errors as load_superblock, Metastore::open, recover_journal.
Result<RecoveredStore> recover(const std::string& directory, const RecoverOptions& options);

}  // namespace rmemfs
