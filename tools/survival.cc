#include "tools/survival.h"

#include <string_view>

#include "tools/format_file_system.h"
#include "util/medium.h"

namespace rmemfs {
namespace {

void add_to_list(std::string& list, const std::string& item) { list += (list.empty() ? "" : ", ") + item; }

}  // namespace

bool survives_power_loss(const std::vector<NodeStatus>& nodes) {
  for (const NodeStatus& node : nodes) {
    if (node.durability.durability == Durability::kVolatile) return false;
  }
  return true;
}

Result<std::string> metadata_in_memory(const std::string& directory, const Superblock& superblock) {
  std::string text;
  ASSIGN_OR_RETURN(const std::string_view store, memory_file_system(directory));
  if (!store.empty()) text = "the metadata directory is on " + std::string(store);
  if (superblock.journal_path.empty()) return text;
  ASSIGN_OR_RETURN(const std::string_view journal, memory_file_system(journal_path_of(directory, superblock)));
  if (!journal.empty()) text += (text.empty() ? "" : " and ") + ("the journal is on " + std::string(journal));
  return text;
}

std::string survival(const std::vector<NodeStatus>& nodes, const std::string& in_memory) {
  std::string anonymous, unknown;
  for (const NodeStatus& node : nodes) {
    if (node.generation == Generation())
      add_to_list(unknown, node.address);
    else if (!node.pool_in_file)
      add_to_list(anonymous, node.address);
  }
  std::string text = "a returned fsync survives the death of the mount daemon";
  if (anonymous.empty() && unknown.empty()) text += " and of a memory node's process";
  const bool persistent = survives_power_loss(nodes);
  if (persistent && in_memory.empty()) return text + ", and power loss of every host";
  if (!anonymous.empty())
    text += "; file data does not survive the death of the process of " + anonymous + " (its pool is not in a file)";
  if (!unknown.empty()) text += "; nothing is known yet of " + unknown;
  if (in_memory.empty())
    text += "; names and attributes survive power loss of this host";
  else
    text += "; names and attributes do not survive power loss or restart of this host (" + in_memory + ")";
  if (!persistent) {
    text += "; file data does not survive power loss or restart of a memory node's host (volatile memory, one replica)";
  }
  return text;
}

}  // namespace rmemfs
