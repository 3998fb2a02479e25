// The decoders of the metadata store's keys and values: no bytes crash them, and what they accept encodes to itself.
// Input: length of the key (1 byte), key, value.
#include <algorithm>
#include <cstdint>
#include <string>

#include "manager/meta_format.h"
#include "manager/posix_acl.h"
#include "util/check.h"

namespace rmemfs {

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string_view key = rest.substr(0, std::min<std::size_t>(data[0], rest.size()));
  const std::string_view value = rest.substr(key.size());

  if (const auto name = decode_dirent_key(key); name.ok())
    CHECK(dirent_key(name->parent, name->hash, name->name) == key);
  if (const auto ino = decode_inode_key(key); ino.ok()) {
    CHECK(inode_key(*ino) == key || symlink_key(*ino) == key || orphan_key(*ino) == key || extended_key(*ino) == key);
  }
  if (const auto id = decode_chunk_key(key); id.ok()) CHECK(chunk_key(*id) == key || bitmap_key(*id) == key);
  if (const auto inode = decode_inode(key, value); inode.ok()) CHECK(encode(*inode) == value);
  if (const auto dirent = decode_dirent(value); dirent.ok()) CHECK(encode(*dirent) == value);
  if (const auto extent = decode_extent(key, value); extent.ok()) CHECK(encode(*extent) == value);
  if (const auto chunk = decode_chunk(value); chunk.ok()) CHECK(encode(*chunk) == value);
  if (const auto number = decode_number(value); number.ok()) CHECK(encode_number(*number) == value);
  if (const auto all = decode_extended(value); all.ok()) CHECK(encode_extended(*all) == value);
  if (const auto list = decode_access_list(value); list.ok()) {
    const std::string again = encode_access_list(*list);
    CHECK(again.size() == value.size() && encode_access_list(*decode_access_list(again)) == again);
  }
  std::string merged;
  if (apply_merge(key, merged, value).ok()) (void)apply_merge(key, merged, value);
  return 0;
}

}  // namespace rmemfs
