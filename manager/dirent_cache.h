// Names in memory: what directories' records say of the names that were asked for lately, and of those that were found
// absent. A lookup, a create or a rename asks for the same name two to four times; the store answers each of them with
// a search that costs as much as all the rest.
//
// A table of fixed size, allocated when it is touched: sets of four slots, the one used last first; a full set forgets
// its last. Names that do not fit into a slot are not kept. Invariants:
//   D1  What is here of a name is what the newest committed transaction says of it.
//   D2  Whoever changes a name holds a Change of it from before the commit until it has told the outcome, and the
//       directory's mutex all the while. The name is not here in between, so others ask the store.
//   D3  What was read from the store enters only if no Change in its shard was there when the reading began, or has
//       begun since.
//
// Thread-safe. Rank kLeaf.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>

#include "manager/meta_format.h"
#include "util/ids.h"
#include "util/mutex.h"

namespace rmemfs {

class DirentCache {
 public:
  struct Name {
    InodeNumber parent;
    std::uint64_t hash = 0;  // hash_name() of it
    std::string_view name;
  };
  // Says that a reading of the store began.
  struct Ticket {
    std::uint64_t changes = 0;
    bool valid = false;
  };
  struct Found {
    bool known = false;
    std::optional<Dirent> dirent;  // of a known one: nothing has that name
    Ticket ticket;                 // of an unknown one, for fill()
  };

  // `names`: about how many are kept, 64 bytes each.
  explicit DirentCache(std::size_t names);

  Found find(const Name& name);
  void fill(const Name& name, Ticket ticket, const std::optional<Dirent>& dirent);

  class Change {
   public:
    Change(DirentCache& cache, const Name& name);
    ~Change();
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;
    // After the commit: what the name is now. Not called: it did not change, or nobody knows.
    void done(const std::optional<Dirent>& dirent);

   private:
    DirentCache& cache_;
    const Name name_;
    bool ended_ = false;
  };

 private:
  static constexpr std::size_t kSlots = 4;    // of a set
  static constexpr std::size_t kShards = 64;  // of the table; a power of two
  struct Slot {
    std::uint64_t parent;  // 0: free
    std::uint64_t hash;
    std::uint64_t ino;  // 0: absent
    std::uint8_t type;
    std::uint8_t size;
    std::array<char, 38> name;
  };
  static_assert(sizeof(Slot) == 64);
  struct Set {
    std::array<Slot, kSlots> slots;
  };
  struct alignas(64) Shard {
    Mutex mutex{LockRank::kLeaf};
    std::uint64_t changes = 0;    // that have begun; guarded by mutex
    std::uint32_t under_way = 0;  // guarded by mutex
  };
  struct Free {
    void operator()(Set* sets) const { std::free(sets); }
  };

  static bool fits(const Name& name) { return name.name.size() <= std::tuple_size_v<decltype(Slot::name)>; }
  std::size_t set_of(const Name& name) const;
  Shard& shard_of(std::size_t set) { return shards_[set % kShards]; }
  static Slot* slot_of(Set& set, const Name& name);
  static void forget(Set& set, const Name& name);
  static void put(Set& set, const Name& name, const std::optional<Dirent>& dirent);

  const std::size_t sets_count_;             // a power of two
  const std::unique_ptr<Set[], Free> sets_;  // a set is guarded by its shard's mutex
  std::array<Shard, kShards> shards_;
};

}  // namespace rmemfs
