// Three walks: chunks (which are lost), extents (whose files), names (their paths). Names are keyed by parent, so paths
// are completed upwards, one walk over the names per level of the tree; memory is bounded by the files found.
#include "tools/lost_files.h"

#include <algorithm>
#include <map>
#include <set>

#include "manager/meta_format.h"
#include "util/bytes.h"

namespace rmemfs {
namespace {

struct Name {
  InodeNumber parent;
  std::string text;
};

std::set<ChunkId> lost_chunks(Metastore& store) {
  std::set<ChunkId> lost;
  auto it = store.iterate("C");
  for (it->seek("C"); it->valid(); it->next()) {
    const auto id = decode_chunk_key(it->key());
    const auto chunk = decode_chunk(it->value());
    if (id.ok() && chunk.ok() && chunk->state == ChunkState::kLost) lost.insert(*id);
  }
  return lost;
}

}  // namespace

std::vector<std::string> lost_files(Metastore& store, std::size_t limit, TimePoint deadline) {
  const std::set<ChunkId> lost = lost_chunks(store);
  std::set<InodeNumber> files;
  if (!lost.empty()) {
    auto it = store.iterate("E");
    for (it->seek("E"); it->valid() && files.size() < limit && MonoClock::now() < deadline; it->next()) {
      const auto extent = decode_extent(it->key(), it->value());
      if (!extent.ok() || !lost.contains(extent->chunk)) continue;
      ByteReader key(as_bytes(it->key()));
      key.take<char>();
      files.insert(InodeNumber(key.take_be64()));
    }
  }
  std::map<InodeNumber, Name> names;
  std::set<InodeNumber> wanted = files;
  while (!wanted.empty() && MonoClock::now() < deadline) {
    std::set<InodeNumber> found;
    auto it = store.iterate("D");
    for (it->seek("D"); it->valid() && MonoClock::now() < deadline; it->next()) {
      const auto key = decode_dirent_key(it->key());
      const auto dirent = decode_dirent(it->value());
      if (!key.ok() || !dirent.ok() || !wanted.contains(dirent->ino)) continue;
      if (names.emplace(dirent->ino, Name{key->parent, std::string(key->name)}).second) found.insert(key->parent);
    }
    wanted.clear();
    for (InodeNumber parent : found) {
      if (parent != kRootInode && !names.contains(parent)) wanted.insert(parent);
    }
  }
  std::vector<std::string> paths;
  for (InodeNumber file : files) {
    std::string path;
    InodeNumber at = file;
    std::size_t depth = 0;
    for (; at != kRootInode && depth < 4096; ++depth) {
      auto name = names.find(at);
      if (name == names.end()) break;
      path.insert(0, "/" + name->second.text);
      at = name->second.parent;
    }
    if (at != kRootInode) path.insert(0, "inode " + std::to_string(at.value()));
    paths.push_back(std::move(path));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace rmemfs
