#include "tree_check.h"

namespace rmemfs {

void check_tree(Mount& m) {
  BOOST_REQUIRE(m.store.journal->checkpoint().ok());
  Metastore& store = *m.store.metastore;
  std::map<std::uint64_t, std::uint32_t> names, subdirectories;
  std::map<std::uint64_t, std::uint64_t> entries, blocks;
  for (const auto it = store.iterate("D"); it->valid(); it->next()) {
    const auto key = decode_dirent_key(it->key());
    const auto dirent = decode_dirent(it->value());
    BOOST_REQUIRE(key.ok() && dirent.ok());
    ++names[dirent->ino.value()];
    ++entries[key->parent.value()];
    if (dirent->type == 4) ++subdirectories[key->parent.value()];
    BOOST_REQUIRE((*store.get(inode_key(dirent->ino))).has_value());
  }
  std::map<std::uint64_t, std::string> bitmaps;
  for (const auto it = store.iterate("E"); it->valid(); it->next()) {
    const auto extent = decode_extent(it->key(), it->value());
    BOOST_REQUIRE(extent.ok());
    std::uint64_t ino = 0;
    for (int i = 1; i <= 8; ++i) ino = ino << 8 | static_cast<unsigned char>(it->key()[static_cast<std::size_t>(i)]);
    blocks[ino] += extent->length / kBlockBytes;
    auto& bitmap = bitmaps[extent->chunk.value()];
    bitmap.resize(4096);
    for (std::uint64_t b = 0; b < extent->length / kBlockBytes; ++b) {
      const std::uint64_t at = extent->chunk_offset / kBlockBytes + b;
      BOOST_REQUIRE_MESSAGE((bitmap[at / 8] >> (at % 8) & 1) == 0, "a block belongs to two files");
      bitmap[at / 8] = static_cast<char>(bitmap[at / 8] | 1 << (at % 8));
    }
  }
  for (const auto it = store.iterate("C"); it->valid(); it->next()) {
    const auto id = decode_chunk_key(it->key());
    auto stored = (*store.get(bitmap_key(*id))).value_or("");
    stored.resize(4096);
    auto& expected = bitmaps[id->value()];
    expected.resize(4096);
    BOOST_REQUIRE_MESSAGE(stored == expected, "the bitmap of a chunk is not what the extents say");
  }
  std::uint64_t inodes = 0;
  for (const auto it = store.iterate("I"); it->valid(); it->next()) {
    const auto a = decode_inode(it->key(), it->value());
    BOOST_REQUIRE(a.ok());
    ++inodes;
    const std::uint64_t ino = a->ino.value();
    BOOST_REQUIRE_EQUAL(a->entries, entries[ino]);
    BOOST_REQUIRE_EQUAL(a->blocks, blocks[ino]);
    if (a->nlink == 0)
      BOOST_REQUIRE((*store.get(orphan_key(a->ino))).has_value());
    else
      BOOST_REQUIRE_EQUAL(a->nlink, S_ISDIR(a->mode) ? 2 + subdirectories[ino] : names[ino]);
  }
  BOOST_REQUIRE_EQUAL(inodes, m.manager->space().inodes);
}

}  // namespace rmemfs
