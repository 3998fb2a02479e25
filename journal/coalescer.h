// Coalescer: merges the modifications of consecutive transactions into what one home batch needs.
//
// Per key the last put or erase wins and drops what came before it; merges after it are concatenated in order. So a key
// that a hundred transactions updated is written once. Keys come in ascending order, which a home takes fastest; else
// their order does not matter, because the batch is atomic. Views must stay valid until clear(). Not thread-safe: one
// owner (the applier, or recovery).
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "journal/home.h"

namespace rmemfs {

class Coalescer {
 public:
  void add(std::span<const Modification> modifications);
  // What is left, at most one put or erase per key, its merges behind it. Valid until the next add() or clear().
  std::span<const Modification> coalesced();
  // A string that lives until clear(): for payloads that had to be gathered from several slots.
  std::string& storage() { return strings_.emplace_back(); }
  void clear();

 private:
  enum class Base : std::uint8_t { kNone, kPut, kErase };
  struct Entry {
    std::string_view key;
    std::string_view value;    // of the put
    std::string_view operand;  // of the merges; into strings_ when there are several
    std::string* joined = nullptr;
    Base base = Base::kNone;
    bool merged = false;
  };
  std::unordered_map<std::string_view, std::uint32_t> index_;  // key -> position in entries_
  std::vector<Entry> entries_;
  std::deque<std::string> strings_;
  std::vector<Modification> out_;
};

}  // namespace rmemfs
