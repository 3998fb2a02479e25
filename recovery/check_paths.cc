// Paths of the inodes that a report names.
//
// Two walks over the names, and memory for what is asked only: the first finds where the asked inodes are, the parents
// table gives their ancestors, the second finds those ancestors' names.
#include <unordered_map>

#include "recovery/check_context.h"

namespace rmemfs {
namespace {

struct Place {
  InodeNumber parent;
  std::string name;
};
using Places = std::unordered_map<InodeNumber, Place>;

constexpr unsigned kMaxDepth = 4096;

// Fills in every entry of `places` that has no name yet.
Result<void> find_places(CheckContext& context, Places& places) {
  return context.walk("D", [&](std::string_view key, std::string_view value) {
    const auto at = decode_dirent_key(key);
    const auto dirent = decode_dirent(value);
    if (!at.ok() || !dirent.ok()) return success();
    const auto place = places.find(dirent->ino);
    if (place == places.end() || !place->second.name.empty()) return success();
    place->second = {at->parent, std::string(at->name)};
    return success();
  });
}

void ask_ancestors(CheckContext& context, Places& places) {
  std::vector<InodeNumber> parents;
  for (const auto& [ino, place] : places) {
    if (!place.name.empty()) parents.push_back(place.parent);
  }
  for (InodeNumber ino : parents) {
    for (unsigned depth = 0; depth < kMaxDepth && ino.value() != 0 && ino != kRootInode; ++depth) {
      if (!places.try_emplace(ino).second) break;
      const DirectoryInfo* directory = context.find_directory(ino);
      ino = directory == nullptr ? InodeNumber() : InodeNumber(directory->found_parent);
    }
  }
}

std::string path_of(const Places& places, InodeNumber ino) {
  if (ino == kRootInode) return "/";
  std::string path;
  for (unsigned depth = 0; depth < kMaxDepth && ino != kRootInode; ++depth) {
    const auto place = places.find(ino);
    if (place == places.end() || place->second.name.empty()) return {};
    path.insert(0, "/" + place->second.name);
    ino = place->second.parent;
  }
  return path;
}

}  // namespace

Result<void> resolve_paths(CheckContext& context) {
  Places places;
  for (const Problem& problem : context.report.problems) {
    if (problem.ino.value() != 0) places.try_emplace(problem.ino);
  }
  for (const LostFile& file : context.report.lost_files) places.try_emplace(file.ino);
  if (places.empty()) return success();
  RETURN_IF_ERROR(find_places(context, places));
  ask_ancestors(context, places);
  RETURN_IF_ERROR(find_places(context, places));
  for (Problem& problem : context.report.problems) problem.path = path_of(places, problem.ino);
  for (LostFile& file : context.report.lost_files) file.path = path_of(places, file.ino);
  return success();
}

}  // namespace rmemfs
