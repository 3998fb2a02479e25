// Changes one inode's record in the metadata store of a file system that is not mounted, to what no test can wait for.
//   edit_metadata DIR INODE links NUMBER     its count of links
//   edit_metadata DIR INODE damage           a record that is none
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "manager/meta_format.h"
#include "manager/metastore.h"
#include "manager/superblock.h"

namespace rmemfs {
namespace {

Result<void> edit(const std::string& directory, InodeNumber ino, const std::string& what, std::uint32_t number) {
  ASSIGN_OR_RETURN(const Superblock superblock, load_superblock(directory));
  ASSIGN_OR_RETURN(const auto store,
                   Metastore::open(directory + "/db", Metastore::Mode::kReadWrite, superblock.uuid, {}));
  const std::string key = inode_key(ino);
  ASSIGN_OR_RETURN(const auto record, store->get(key));
  if (!record) return Error(Errc::kNotFound, "edit", "inode " + std::to_string(ino.value()));
  std::string value = *record;
  if (what == "links") {
    ASSIGN_OR_RETURN(Attributes attributes, decode_inode(key, value));
    attributes.nlink = number;
    value = encode(attributes);
  } else {
    value = "this is a letter, not an inode";
  }
  const std::array<Modification, 1> modification{Modification{ModificationKind::kPut, key, value}};
  RETURN_IF_ERROR(store->apply(modification, store->durable_watermark()));
  RETURN_IF_ERROR(store->make_durable());
  return success();
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) {
  const std::string what = argc > 3 ? argv[3] : "";
  if (!(what == "links" && argc == 5) && !(what == "damage" && argc == 4)) return 2;
  const auto number = argc == 5 ? static_cast<std::uint32_t>(std::strtoul(argv[4], nullptr, 10)) : 0;
  const auto edited = rmemfs::edit(argv[1], rmemfs::InodeNumber(std::strtoull(argv[2], nullptr, 10)), what, number);
  if (edited.ok()) return 0;
  std::fprintf(stderr, "%s\n", edited.error().message().c_str());
  return 1;
}
