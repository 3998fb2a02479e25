// mkfs.rmemfs: makes an rmemfs file system in a directory.
#include <unistd.h>

#include <cstdio>

#include "tools/cli.h"
#include "tools/format_file_system.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr const char* kProgram = "mkfs.rmemfs";

struct Arguments {
  FormatOptions format;
  std::optional<std::uint64_t> journal_bytes;
  std::optional<std::uint32_t> journal_slots;
  bool quiet = false;
};

// --journal-size and --journal-slots say the same thing in two units; one of them may be given.
Result<void> set_geometry(Arguments& arguments) {
  JournalGeometry& journal = arguments.format.journal;
  if (arguments.journal_slots) journal.slot_count = *arguments.journal_slots;
  if (!arguments.journal_bytes) return success();
  JournalGeometry one = journal;
  one.slot_count = 0;
  const std::uint64_t fixed = Journal::bytes_needed(one);
  const std::uint64_t slots =
      *arguments.journal_bytes > fixed ? (*arguments.journal_bytes - fixed) / journal.slot_bytes : 0;
  if (slots < 2 || slots > 1048576) {
    return Error(Errc::kInvalid, "",
                 "--journal-size must make room for 2 to 1048576 slots of " + cli::format_size(journal.slot_bytes) +
                     ", and 4 KiB more");
  }
  journal.slot_count = static_cast<std::uint32_t>(slots);
  return success();
}

std::string sentence(const Error& error) {
  const bool complete = error.code == Errc::kExists || error.code == Errc::kNotEmpty;
  return complete && !error.detail.empty() ? error.detail : cli::sentence_of(error);
}

void print_summary(const Arguments& arguments, const FormatReport& report) {
  using cli::format_size;
  const FormatOptions& o = arguments.format;
  std::printf("Made file system %s in %s: %zu memory node%s with %s free of %s, chunks of %s, a journal of %u slots\n",
              report.uuid.to_string().c_str(), o.directory.c_str(), o.nodes.size(), o.nodes.size() == 1 ? "" : "s",
              format_size(report.free_bytes).c_str(), format_size(report.pool_bytes).c_str(),
              format_size(o.chunk_bytes).c_str(), o.journal.slot_count);
  if (report.released_regions != 0) {
    std::printf("Gave back %llu regions of the file system that was there\n",
                static_cast<unsigned long long>(report.released_regions));
  }
}

int main_of(int argc, char** argv) {
  Arguments arguments;
  FormatOptions& format = arguments.format;
  CLI::App app("Makes an rmemfs file system in the metadata directory DIR");
  cli::prepare(app, kProgram);
  app.add_option("--node", format.nodes,
                 "Memory node: shm:SOCKET, tcp://HOST:PORT or rdma://HOST:PORT; may be repeated")
      ->type_name("ADDR")
      ->required()
      ->allow_extra_args(false);
  app.add_option("-L,--label", format.label, "Name of the file system, at most 64 bytes");
  cli::add_size(app, "--chunk-size", format.chunk_bytes, "Unit in which memory is leased (default 64M)");
  auto* bytes = cli::add_size(app, "--journal-size", arguments.journal_bytes, "Size of the journal");
  app.add_option("--journal-slots", arguments.journal_slots, "Number of the journal's slots (default 32768)")
      ->excludes(bytes);
  app.add_option("--journal-slot-size", format.journal.slot_bytes, "Bytes of a slot (default 1024)");
  app.add_option("--journal", format.journal_path,
                 "Where the journal is, e.g. on persistent memory (default DIR/journal)")
      ->type_name("PATH");
  app.add_flag("-f,--force", format.force,
               "Make it over an rmemfs file system that is there: everything in it is lost");
  app.add_flag("-q,--quiet", arguments.quiet, "Print nothing but errors");
  app.add_flag("-n,--dry-run", format.dry_run, "Check everything, make nothing");
  app.add_option("DIR", format.directory, "Metadata directory; made when it does not exist")->required();
  if (const auto status = cli::parse(app, argc, argv)) return *status;
  log::set_level(log::Level::kOff);  // what goes wrong is printed once, here
  if (const auto geometry = set_geometry(arguments); !geometry.ok())
    return cli::fail(kProgram, geometry.error(), cli::kUsage);

  if (!arguments.quiet && ::isatty(STDERR_FILENO) != 0) {
    std::fprintf(stderr, "%s: asking %zu memory node%s\n", kProgram, format.nodes.size(),
                 format.nodes.size() == 1 ? "" : "s");
  }
  FormatReport report;
  const auto made = format_file_system(format, &report);
  for (const std::string& warning : report.warnings) cli::print_error(kProgram, "warning: " + warning);
  if (!made.ok()) {
    cli::print_error(kProgram, sentence(made.error()));
    return made.error().code == Errc::kInvalid ? cli::kUsage : cli::kFailure;
  }
  if (!arguments.quiet && !format.dry_run) print_summary(arguments, report);
  return 0;
}

}  // namespace
}  // namespace rmemfs

int main(int argc, char** argv) { return rmemfs::main_of(argc, argv); }
