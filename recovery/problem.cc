#include "recovery/problem.h"

#include <array>

#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::array kTable = {
#define RMEMFS_X(name, code, risk, sentence, repair) \
  ProblemInfo{ProblemCode::name, #name, RepairRisk::risk, sentence, repair},
    RMEMFS_PROBLEMS(RMEMFS_X)
#undef RMEMFS_X
};

constexpr bool ascending() {
  for (std::size_t i = 1; i < kTable.size(); ++i) {
    if (kTable[i - 1].code >= kTable[i].code) return false;
  }
  return true;
}
static_assert(ascending(), "codes are unique and in order");

}  // namespace

std::string_view pass_name(CheckPass pass) {
  static constexpr std::array<std::string_view, kCheckPasses> kNames = {"journal", "superblock", "inodes",  "names",
                                                                        "extents", "space",      "orphans", "nodes"};
  const auto index = static_cast<std::size_t>(pass);
  CHECK(index >= 1 && index <= kCheckPasses);
  return kNames[index - 1];
}

std::span<const ProblemInfo> problem_table() { return kTable; }

const ProblemInfo& info_of(ProblemCode code) {
  for (const ProblemInfo& info : kTable) {
    if (info.code == code) return info;
  }
  check_failed(__FILE__, __LINE__, "a code outside the table");
}

std::string Problem::message() const {
  std::string text;
  if (!path.empty()) text += path + ": ";
  if (ino.value() != 0) text += "inode " + std::to_string(ino.value()) + ": ";
  text += info_of(code).sentence;
  if (!detail.empty()) text += ": " + detail;
  return text;
}

}  // namespace rmemfs
