// What a directory tree must hold after a list of operations: the oracle of the crash tests. It knows nothing of
// rmemfs.
//
// A worker logs "try N ..." before a system call and "ack N" after it returned. The model of the acknowledged
// operations is what must be there; the one operation that was tried and not acknowledged may be there or not.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace crash {

struct Operation {
  std::uint64_t number = 0;
  std::string verb, a = "-", b = "-";
  std::uint64_t x = 0, y = 0;
};

std::string to_line(const Operation& op);  // without "try "
bool from_line(const std::string& text, Operation& op);

// The bytes that operation `number` of `worker` writes at file offset `offset`.
std::string content(unsigned worker, std::uint64_t number, std::uint64_t offset, std::size_t length);

struct Object {
  char kind = 'f';  // f file, d directory, l symlink
  unsigned mode = 0;
  std::string data;                               // a file's bytes or a symlink's target
  std::int64_t mtime = -1;                        // seconds; -1: not known
  bool unsynced = false;                          // written since the last fsync
  std::map<std::string, std::string> attributes;  // user.*
  // Access lists name one user, and the owning group with kGroupPermissions; the rest of an access list is the mode.
  int access_user = -1;   // that user's permissions; -1: there is no list
  int default_user = -1;  // a directory's, in its default list
};

using Tree = std::map<std::string, std::shared_ptr<Object>>;  // relative path -> object; hard links share one

Tree deep_copy(const Tree& tree);
void apply(Tree& tree, const Operation& op, unsigned worker);
int execute(const std::string& root, const Operation& op, unsigned worker);  // 0 or an errno

// Is `root` this tree? `torn` (may be empty): a path whose file may hold, byte by byte, also what `other` says.
std::vector<std::string> differences(const std::string& root, const Tree& tree, const std::string& torn,
                                     const Tree& other);

}  // namespace crash
