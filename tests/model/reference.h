// The reference: what a POSIX file system holds, in plain containers, written without a look at rmemfs's code.
// Each operation returns the errors that POSIX allows for it in this state; an empty set means that it must succeed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "manager/manager.h"

namespace rmemfs::model {

enum class Kind : std::uint8_t { kFile, kDirectory, kSymlink, kFifo };

struct Node {
  Kind kind = Kind::kFile;
  std::uint32_t permissions = 0;
  std::uint32_t links = 0;
  std::string data;  // a file's bytes; a symlink's target
  std::map<std::string, std::shared_ptr<Node>> entries;
};
using NodePtr = std::shared_ptr<Node>;
using Errors = std::set<Errc>;

class Reference {
 public:
  Reference();

  const NodePtr& root() const { return root_; }
  // Every directory as the names that lead to it, the root first.
  std::vector<std::vector<std::string>> directories() const;
  NodePtr find(const std::vector<std::string>& path) const;

  Errors make(const NodePtr& parent, const std::string& name, Kind kind, std::uint32_t permissions,
              const std::string& target);
  Errors link(const NodePtr& node, const NodePtr& parent, const std::string& name);
  Errors unlink(const NodePtr& parent, const std::string& name);
  Errors rmdir(const NodePtr& parent, const std::string& name);
  Errors rename(const NodePtr& parent, const std::string& name, const NodePtr& to, const std::string& new_name,
                RenameMode mode);

  static void write(Node& node, std::uint64_t offset, const std::string& bytes);
  static void truncate(Node& node, std::uint64_t size) { node.data.resize(size, '\0'); }
  static void punch(Node& node, std::uint64_t offset, std::uint64_t length);

 private:
  static bool contains(const NodePtr& tree, const NodePtr& node);
  NodePtr root_;
};

}  // namespace rmemfs::model
