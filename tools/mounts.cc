#include "tools/mounts.h"

#include <sys/mount.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace rmemfs {
namespace {

constexpr int kMostLinks = 40;  // as the kernel follows

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

std::vector<std::string_view> split(std::string_view line, char separator) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const std::size_t space = line.find(separator);
    words.push_back(line.substr(0, space));
    line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
  }
  return words;
}

// The words of mountinfo's two fields of options. Those of the mount and those of the file system together are what
// mount(2) takes.
unsigned long flags_of(std::string_view mount, std::string_view file_system) {
  static constexpr std::pair<std::string_view, unsigned long> kWords[] = {
      {"ro", MS_RDONLY},        {"nosuid", MS_NOSUID},     {"nodev", MS_NODEV},
      {"noexec", MS_NOEXEC},    {"sync", MS_SYNCHRONOUS},  {"dirsync", MS_DIRSYNC},
      {"noatime", MS_NOATIME},  {"relatime", MS_RELATIME}, {"nodiratime", MS_NODIRATIME},
      {"lazytime", MS_LAZYTIME}};
  unsigned long flags = 0;
  for (std::string_view list : {mount, file_system}) {
    for (std::string_view word : split(list, ',')) {
      for (const auto& [name, flag] : kWords) {
        if (word == name) flags |= flag;
      }
    }
  }
  // The kernel shows the default, and nothing for strictatime.
  return (flags & (MS_NOATIME | MS_RELATIME)) == 0 ? flags | MS_STRICTATIME : flags;
}

}  // namespace

std::string resolved_above(const std::string& place) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path path = fs::absolute(place, error).lexically_normal();
  if (error) return place;
  if (!path.has_filename()) path = path.parent_path();
  const fs::path parent = fs::canonical(path.parent_path(), error);
  return error ? path.string() : (parent / path.filename()).string();
}

std::vector<MountEntry> parse_mountinfo(std::string_view text) {
  std::vector<MountEntry> mounts;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    const std::vector<std::string_view> words = split(text.substr(0, newline), ' ');
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    // id parent device root MOUNTPOINT options [optional...] - TYPE SOURCE options
    std::size_t dash = 6;
    while (dash < words.size() && words[dash] != "-") ++dash;
    if (dash + 2 >= words.size() || words[dash + 1] != "fuse.rmemfs") continue;
    MountEntry entry{unescape(words[4]), unescape(words[dash + 2])};
    const std::string_view minor = words[2].substr(words[2].find(':') + 1);
    std::from_chars(minor.data(), minor.data() + minor.size(), entry.connection);
    entry.flags = flags_of(words[5], dash + 3 < words.size() ? words[dash + 3] : std::string_view{});
    mounts.push_back(std::move(entry));
  }
  return mounts;
}

std::vector<MountEntry> current_mounts() {
  std::ifstream file("/proc/self/mountinfo");
  std::ostringstream content;
  content << file.rdbuf();
  return parse_mountinfo(content.str());
}

std::optional<MountEntry> mount_at(const std::string& mountpoint) {
  const std::vector<MountEntry> mounts = current_mounts();
  std::string path = resolved_above(mountpoint);
  for (int links = 0; links < kMostLinks; ++links) {
    for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {  // the last one mounted is what is seen
      if (mount->mountpoint == path) return *mount;
    }
    // It is no mount of ours, so it may be looked at.
    std::error_code no_link;
    const std::filesystem::path target = std::filesystem::read_symlink(path, no_link);
    if (no_link) break;
    path = resolved_above((std::filesystem::path(path).parent_path() / target).string());
  }
  return std::nullopt;
}

std::optional<MountEntry> mount_of(const std::string& place) {
  if (auto mount = mount_at(place)) return mount;
  const std::vector<MountEntry> mounts = current_mounts();
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(place, error);
  if (error) return std::nullopt;
  for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {
    if (mount->directory == path) return *mount;
  }
  return std::nullopt;
}

Result<std::string> find_directory(const std::string& place) {
  const std::vector<MountEntry> mounts = current_mounts();
  if (place.empty()) {
    if (mounts.size() == 1) return mounts[0].directory;
    if (mounts.empty()) return Error(Errc::kNotFound, "mounts", "nothing is mounted; name the file system's directory");
    std::string list;
    for (const MountEntry& mount : mounts) list += (list.empty() ? "" : ", ") + mount.mountpoint;
    return Error(Errc::kInvalid, "mounts", "several file systems are mounted; name one of " + list);
  }
  const auto mount = mount_at(place);
  return mount ? mount->directory : resolved_above(place);
}

}  // namespace rmemfs
