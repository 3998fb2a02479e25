#include "tools/mounts.h"

#include <filesystem>
#include <fstream>
#include <sstream>

namespace rmemfs {
namespace {

// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
std::string unescape(std::string_view text) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) && octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const std::size_t space = line.find(' ');
    words.push_back(line.substr(0, space));
    line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
  }
  return words;
}

// Without following the last name, which may be a mount that does not answer: its parent is resolved, it is not.
std::string resolved(const std::string& place) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path path = fs::absolute(place, error).lexically_normal();
  if (error) return place;
  if (!path.has_filename()) path = path.parent_path();
  const fs::path parent = fs::canonical(path.parent_path(), error);
  return error ? path.string() : (parent / path.filename()).string();
}

}  // namespace

std::vector<MountEntry> parse_mountinfo(std::string_view text) {
  std::vector<MountEntry> mounts;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    const std::vector<std::string_view> words = split(text.substr(0, newline));
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    // id parent device root MOUNTPOINT options [optional...] - TYPE SOURCE options
    std::size_t dash = 6;
    while (dash < words.size() && words[dash] != "-") ++dash;
    if (dash + 2 >= words.size() || words[dash + 1] != "fuse.rmemfs") continue;
    mounts.push_back({unescape(words[4]), unescape(words[dash + 2])});
  }
  return mounts;
}

Result<std::string> find_directory(const std::string& place) {
  std::ifstream file("/proc/self/mountinfo");
  std::ostringstream content;
  content << file.rdbuf();
  const std::vector<MountEntry> mounts = parse_mountinfo(content.str());
  if (place.empty()) {
    if (mounts.size() == 1) return mounts[0].directory;
    if (mounts.empty()) return Error(Errc::kNotFound, "mounts", "nothing is mounted; name the file system's directory");
    std::string list;
    for (const MountEntry& mount : mounts) list += (list.empty() ? "" : ", ") + mount.mountpoint;
    return Error(Errc::kInvalid, "mounts", "several file systems are mounted; name one of " + list);
  }
  const std::string path = resolved(place);
  for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {  // the last one mounted is what is seen
    if (mount->mountpoint == path) return mount->directory;
  }
  return path;
}

}  // namespace rmemfs
