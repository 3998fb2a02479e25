// Changes one thing in a file system's superblock and leaves its checksum right, as another version or another owner
// would.
//   edit_superblock DIR incompat|ro_compat|key
// The only helper here that knows the format: a test that wrote the file by hand would test its own idea of the format.
#include <cstdio>
#include <fstream>
#include <string>

#include "manager/superblock.h"

int main(int argc, char** argv) {
  const std::string what = argc == 3 ? argv[2] : "";
  if (what.empty()) return 2;
  auto superblock = rmemfs::load_superblock(argv[1]);
  if (!superblock) {
    std::fprintf(stderr, "%s\n", superblock.error().message().c_str());
    return 1;
  }
  if (what == "incompat")
    superblock->incompat |= std::uint64_t{1} << 40;
  else if (what == "ro_compat")
    superblock->ro_compat |= std::uint64_t{1} << 41;
  else if (what == "key")
    superblock->key.bytes[3] ^= std::byte{1};
  else
    return 2;
  std::ofstream(std::string(argv[1]) + "/superblock", std::ios::binary | std::ios::trunc)
      << rmemfs::encode_superblock(*superblock);
  return 0;
}
