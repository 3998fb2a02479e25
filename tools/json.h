// Writes JSON (RFC 8259) for the programs' --json: values in the order given, strings escaped. Bytes that are not UTF-8
// become U+FFFD, because JSON has no other way to say them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rmemfs {

class Json {
 public:
  Json& begin_object();
  Json& end_object();
  Json& begin_array();
  Json& end_array();
  Json& key(std::string_view name);
  Json& value(std::string_view text);
  Json& value(const char* text) { return value(std::string_view(text)); }
  Json& value(std::uint64_t number);
  Json& value(double number);  // null when it is not finite
  Json& value(bool truth);
  template <typename T>
  Json& field(std::string_view name, const T& content) {
    return key(name).value(content);
  }
  const std::string& text() const { return text_; }

 private:
  void separate();
  std::string text_;
  bool first_ = true;  // in the innermost object or array
  bool after_key_ = false;
};

}  // namespace rmemfs
