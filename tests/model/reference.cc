#include "reference.h"

#include <algorithm>

namespace rmemfs::model {
namespace {

bool is_directory(const NodePtr& node) { return node->kind == Kind::kDirectory; }

void walk(const NodePtr& node, std::vector<std::string>& path, std::vector<std::vector<std::string>>& out) {
  out.push_back(path);
  for (const auto& [name, child] : node->entries) {
    if (!is_directory(child)) continue;
    path.push_back(name);
    walk(child, path, out);
    path.pop_back();
  }
}

}  // namespace

Reference::Reference() : root_(std::make_shared<Node>()) {
  root_->kind = Kind::kDirectory;
  root_->permissions = 0755;
  root_->links = 2;
}

std::vector<std::vector<std::string>> Reference::directories() const {
  std::vector<std::vector<std::string>> out;
  std::vector<std::string> path;
  walk(root_, path, out);
  return out;
}

NodePtr Reference::find(const std::vector<std::string>& path) const {
  NodePtr at = root_;
  for (const std::string& name : path) at = at->entries.at(name);
  return at;
}

bool Reference::contains(const NodePtr& tree, const NodePtr& node) {
  if (tree == node) return true;
  return std::any_of(tree->entries.begin(), tree->entries.end(),
                     [&](const auto& entry) { return is_directory(entry.second) && contains(entry.second, node); });
}

Errors Reference::make(const NodePtr& parent, const std::string& name, Kind kind, std::uint32_t permissions,
                       const std::string& target) {
  if (name.size() > 255) return {Errc::kNameTooLong};
  if (parent->entries.contains(name)) return {Errc::kExists};
  auto node = std::make_shared<Node>();
  node->kind = kind;
  node->permissions = permissions;
  if (kind == Kind::kDirectory)
    node->permissions |= parent->permissions & 02000;  // as Linux: set-group-ID is inherited
  node->links = kind == Kind::kDirectory ? 2 : 1;
  node->data = target;
  parent->entries[name] = node;
  if (kind == Kind::kDirectory) ++parent->links;
  return {};
}

Errors Reference::link(const NodePtr& node, const NodePtr& parent, const std::string& name) {
  if (parent->entries.contains(name)) return {Errc::kExists};
  parent->entries[name] = node;
  ++node->links;
  return {};
}

Errors Reference::unlink(const NodePtr& parent, const std::string& name) {
  auto it = parent->entries.find(name);
  if (it == parent->entries.end()) return {Errc::kNotFound};
  if (is_directory(it->second)) return {Errc::kIsDirectory, Errc::kNotPermitted};
  --it->second->links;
  parent->entries.erase(it);
  return {};
}

Errors Reference::rmdir(const NodePtr& parent, const std::string& name) {
  auto it = parent->entries.find(name);
  if (it == parent->entries.end()) return {Errc::kNotFound};
  if (!is_directory(it->second)) return {Errc::kNotDirectory};
  if (!it->second->entries.empty()) return {Errc::kNotEmpty};
  it->second->links = 0;
  --parent->links;
  parent->entries.erase(it);
  return {};
}

Errors Reference::rename(const NodePtr& parent, const std::string& name, const NodePtr& to, const std::string& new_name,
                         RenameMode mode) {
  auto source = parent->entries.find(name);
  if (source == parent->entries.end()) return {Errc::kNotFound};
  const NodePtr moved = source->second;
  auto target = to->entries.find(new_name);
  const NodePtr victim = target == to->entries.end() ? nullptr : target->second;
  Errors errors;
  if (is_directory(moved) && contains(moved, to)) errors.insert(Errc::kInvalid);
  if (mode == RenameMode::kNoReplace && victim) errors.insert(Errc::kExists);
  if (mode == RenameMode::kExchange) {
    if (!victim)
      errors.insert(Errc::kNotFound);
    else if (is_directory(victim) && contains(victim, parent))
      errors.insert(Errc::kInvalid);
  }
  if (mode != RenameMode::kExchange && victim && victim != moved) {
    if (is_directory(victim) && !is_directory(moved)) errors.insert(Errc::kIsDirectory);
    if (!is_directory(victim) && is_directory(moved)) errors.insert(Errc::kNotDirectory);
    if (is_directory(victim) && !victim->entries.empty()) errors.insert(Errc::kNotEmpty);
  }
  if (!errors.empty()) return errors;
  if (victim == moved) return {};
  if (mode == RenameMode::kExchange) {
    if (is_directory(moved) != is_directory(victim) && parent != to) {
      (is_directory(moved) ? parent : to)->links -= 1;
      (is_directory(moved) ? to : parent)->links += 1;
    }
    std::swap(parent->entries[name], to->entries[new_name]);
    return {};
  }
  if (victim) {
    if (is_directory(victim)) {
      victim->links = 0;
      --to->links;
    } else {
      --victim->links;
    }
  }
  parent->entries.erase(name);
  to->entries[new_name] = moved;
  if (is_directory(moved) && parent != to) {
    --parent->links;
    ++to->links;
  }
  return {};
}

void Reference::write(Node& node, std::uint64_t offset, const std::string& bytes) {
  if (bytes.empty()) return;
  if (node.data.size() < offset + bytes.size()) node.data.resize(offset + bytes.size(), '\0');
  node.data.replace(offset, bytes.size(), bytes);
}

void Reference::punch(Node& node, std::uint64_t offset, std::uint64_t length) {
  if (offset >= node.data.size()) return;
  length = std::min<std::uint64_t>(length, node.data.size() - offset);
  std::fill_n(node.data.begin() + static_cast<std::ptrdiff_t>(offset), length, '\0');
}

}  // namespace rmemfs::model
