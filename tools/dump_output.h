// What rmemfs-dump writes: records of named values, as lines "name value  name value" or as a JSON array of objects.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tools/json.h"

namespace rmemfs::dump {

class Record {
 public:
  Record& text(std::string name, std::string_view value);
  Record& number(std::string name, std::uint64_t value);
  // Bytes that could not be decoded, in hexadecimal: nothing is lost.
  Record& bytes(std::string name, std::string_view value);

 private:
  friend class Output;
  std::vector<std::pair<std::string, std::variant<std::string, std::uint64_t>>> fields_;
};

// One per run. Writes to standard output as it goes; JSON is complete after finish().
class Output {
 public:
  explicit Output(bool json) : json_(json) {}
  void write(const Record& record);
  bool finish();  // false: not everything could be written

 private:
  const bool json_;
  bool first_ = true;
};

std::string hex(std::string_view bytes);
std::string time_text(std::int64_t seconds, std::uint32_t nanoseconds);  // UTC, ISO 8601
std::string mode_text(std::uint32_t mode);                               // "-rw-r--r--"

}  // namespace rmemfs::dump
