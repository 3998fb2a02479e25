#include "tools/dump_output.h"

#include <sys/stat.h>

#include <cstdio>
#include <ctime>

#include "tools/report_text.h"

namespace rmemfs::dump {

Record& Record::text(std::string name, std::string_view value) {
  fields_.emplace_back(std::move(name), std::string(value));
  return *this;
}
Record& Record::number(std::string name, std::uint64_t value) {
  fields_.emplace_back(std::move(name), value);
  return *this;
}
Record& Record::bytes(std::string name, std::string_view value) { return text(std::move(name), hex(value)); }

void Output::write(const Record& record) {
  std::string line;
  if (json_) {
    Json json;
    json.begin_object();
    for (const auto& [name, value] : record.fields_) {
      if (const auto* number = std::get_if<std::uint64_t>(&value))
        json.field(name, *number);
      else
        json.field(name, std::get<std::string>(value));
    }
    json.end_object();
    line = (first_ ? "[\n" : ",\n") + json.text();
  } else {
    for (const auto& [name, value] : record.fields_) {
      if (!line.empty()) line += "  ";
      line += name + " ";
      if (const auto* number = std::get_if<std::uint64_t>(&value))
        line += std::to_string(*number);
      else
        line += cli::printable(std::get<std::string>(value));
    }
    line += '\n';
  }
  first_ = false;
  std::fwrite(line.data(), 1, line.size(), stdout);
}

bool Output::finish() {
  if (json_) std::fputs(first_ ? "[]\n" : "\n]\n", stdout);
  return std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
}

std::string hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

std::string time_text(std::int64_t seconds, std::uint32_t nanoseconds) {
  const std::time_t time = seconds;
  std::tm parts;
  char text[64];
  if (::gmtime_r(&time, &parts) == nullptr || std::strftime(text, sizeof text, "%FT%T", &parts) == 0) {
    return std::to_string(seconds) + "." + std::to_string(nanoseconds);
  }
  char fraction[16];
  std::snprintf(fraction, sizeof fraction, ".%09uZ", nanoseconds % 1000000000u);
  return std::string(text) + fraction;
}

std::string mode_text(std::uint32_t mode) {
  std::string text = "?rwxrwxrwx";
  static constexpr std::pair<std::uint32_t, char> kTypes[] = {
      {S_IFREG, '-'}, {S_IFDIR, 'd'}, {S_IFLNK, 'l'}, {S_IFCHR, 'c'}, {S_IFBLK, 'b'}, {S_IFIFO, 'p'}, {S_IFSOCK, 's'}};
  for (const auto& [type, letter] : kTypes) {
    if ((mode & S_IFMT) == type) text[0] = letter;
  }
  for (unsigned bit = 0; bit < 9; ++bit) {
    if ((mode >> (8 - bit) & 1) == 0) text[bit + 1] = '-';
  }
  const auto special = [&](std::uint32_t flag, std::size_t at, char with, char without) {
    if ((mode & flag) != 0) text[at] = text[at] == 'x' ? with : without;
  };
  special(S_ISUID, 3, 's', 'S');
  special(S_ISGID, 6, 's', 'S');
  special(S_ISVTX, 9, 't', 'T');
  return text;
}

}  // namespace rmemfs::dump
