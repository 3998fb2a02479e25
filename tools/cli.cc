#include "tools/cli.h"

#include <unistd.h>

#include <charconv>
#include <cstdio>

namespace rmemfs::cli {
namespace {

Error bad_size(std::string_view text, std::string_view why) {
  return Error(Errc::kInvalid, "size", "\"" + std::string(text) + "\" " + std::string(why));
}

// The first argument that no option took, as a sentence; empty when there is none.
std::string unexpected(const CLI::App& app) {
  for (const std::string& word : app.remaining(true)) {
    if (word == "--") continue;
    const bool option = word.size() > 1 && word[0] == '-';
    return (option ? "unknown option \"" : "unexpected argument \"") + word + "\"; see " + app.get_name() + " --help";
  }
  return {};
}

// Of the library's sentences one is no sentence: "Could not convert: INO = abc". All that we let it convert is numbers.
std::string sentence_of_parser(const CLI::ParseError& error) {
  static constexpr std::string_view kBegin = "Could not convert: ", kMiddle = " = ";
  const std::string text = error.what();
  const std::size_t middle = text.find(kMiddle);
  if (!text.starts_with(kBegin) || middle == std::string::npos) return text;
  return text.substr(kBegin.size(), middle - kBegin.size()) + ": \"" + text.substr(middle + kMiddle.size()) +
         "\" is not a number that it can take";
}

template <typename Target>
CLI::Option* add_size_option(CLI::App& app, const std::string& name, Target& target, const std::string& description) {
  auto store = [&target, name](const std::string& text) {
    Result<std::uint64_t> size = parse_size(text);
    if (!size.ok()) throw CLI::ValidationError(name, size.error().detail);
    target = *size;
  };
  return app.add_option_function<std::string>(name, store, description)->type_name("SIZE");
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::result_out_of_range) return bad_size(text, "is too large for a size");
  if (error != std::errc()) return bad_size(text, "is not a size; write a whole number with K, M, G or T, as in 4G");
  const std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (suffix.empty()) return number;
  static constexpr std::string_view kSuffixes = "KMGT";
  const std::size_t power = suffix.size() == 1 ? kSuffixes.find(suffix[0]) : std::string_view::npos;
  if (power == std::string_view::npos) {
    return bad_size(text, "has the unknown suffix \"" + std::string(suffix) + "\"; use K, M, G or T");
  }
  const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
  if (number > (UINT64_MAX >> shift)) return bad_size(text, "is too large for a size");
  return number << shift;
}

std::string format_size(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  double value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < std::size(kUnits)) value /= 1024, ++unit;
  char text[48];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string exact_size(std::uint64_t bytes) {
  static constexpr std::string_view kSuffixes = "KMGT";
  std::size_t power = 0;
  while (power < kSuffixes.size() && bytes != 0 && bytes % 1024 == 0) bytes /= 1024, ++power;
  return std::to_string(bytes) + (power == 0 ? "" : std::string(1, kSuffixes[power - 1]));
}

std::string sentence_of(const Error& error) {
  if (error.code != Errc::kInvalid || error.detail.empty()) return error.message();
  return (*error.where == '\0' ? std::string() : std::string(error.where) + ": ") + error.detail;
}

void print_error(std::string_view program, std::string_view sentence) {
  std::string line(program);
  line.append(": ").append(sentence).append("\n");
  // Nothing is left to be done when standard error is gone.
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

void print_error(std::string_view program, const Error& error) { print_error(program, sentence_of(error)); }

void prepare(CLI::App& app, const std::string& program) {
  app.name(program);
  app.set_version_flag("-V,--version", program + " " RMEMFS_VERSION, "Print the version and exit");
  // Unknown arguments are collected, so that parse() can name the first one even when a required one is missing too.
  app.allow_extras();
}

CLI::Option* add_size(CLI::App& app, const std::string& name, std::uint64_t& target, const std::string& description) {
  return add_size_option(app, name, target, description);
}

CLI::Option* add_size(CLI::App& app, const std::string& name, std::optional<std::uint64_t>& target,
                      const std::string& description) {
  return add_size_option(app, name, target, description);
}

std::optional<int> parse(CLI::App& app, int argc, const char* const* argv, int usage) {
  std::string problem;
  try {
    app.parse(argc, argv);
    problem = unexpected(app);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    problem = unexpected(app);
    if (problem.empty()) problem = sentence_of_parser(error);
  }
  if (problem.empty()) return std::nullopt;
  if (const std::size_t newline = problem.find('\n'); newline != std::string::npos) problem.resize(newline);
  print_error(app.get_name(), problem);
  return usage;
}

}  // namespace rmemfs::cli
