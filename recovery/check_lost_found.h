// LostAndFound: gives inodes without a name one in /lost+found, which is made when it is first needed.
//
// Each adoption keeps link and entry counts, stored and found, in step, so that it causes no further problem. Part of
// the repair that the caller was allowed to make.
#pragma once

#include <string>

#include "recovery/check_context.h"

namespace rmemfs {

class LostAndFound {
 public:
  explicit LostAndFound(CheckContext& context) : context_(context) {}
  // Names `ino` "#<number>" there. Pointers and references into the context's tables do not survive it.
  Result<void> adopt(InodeNumber ino);

 private:
  Result<void> open();
  Result<void> make(const std::string& name);
  // A name of `base`, `base`.1, ... in `directory` that is not taken.
  Result<std::string> free_name(InodeNumber directory, const std::string& base);
  std::string key_of(InodeNumber directory, const std::string& name) const;
  Result<void> add_entry(InodeNumber directory, const std::string& name, InodeNumber ino, std::uint8_t type);

  CheckContext& context_;
  InodeNumber directory_;  // 0: not opened yet
};

}  // namespace rmemfs
