// The superblock's bytes. Fixed header (256 bytes, offsets below), then the texts, each a length (u16) and its bytes:
// journal_path, local_pool, label, and for each node its id (u32) and address.
//
// The checksum covers the whole file with its own field taken as zero, so each single wrong byte is seen; magic,
// version, length and checksum keep their places in all versions, so that damage is told from a newer version.
#include "manager/superblock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "manager/meta_format.h"
#include "util/bytes.h"
#include "util/crc32c.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kMagic = 0x5245505553464d52;  // "RMFSUPER"
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kMaxFileSize = 8u << 20;
constexpr std::size_t kMaxTextBytes = 4096;
constexpr std::size_t kMaxLabelBytes = 64;
constexpr std::size_t kMaxNodes = 1024;

struct Header {
  std::uint64_t magic;           //   0
  std::uint32_t version;         //   8
  std::uint32_t length;          //  12  of the whole file
  std::uint32_t checksum;        //  16  CRC32C, this field as zero
  std::uint32_t node_count;      //  20
  std::uint8_t uuid[16];         //  24
  std::uint64_t compat;          //  40
  std::uint64_t ro_compat;       //  48
  std::uint64_t incompat;        //  56
  std::uint64_t chunk_bytes;     //  64
  std::uint64_t name_hash_seed;  //  72
  std::uint8_t key[16];          //  80
  std::uint64_t epoch;           //  96
  std::uint32_t slot_bytes;      // 104
  std::uint32_t slot_count;      // 108
  std::uint64_t local_bytes;     // 112
  std::int64_t created;          // 120
  std::uint8_t reserved[128];    // 128
};
static_assert(sizeof(Header) == 256);
static_assert(offsetof(Header, checksum) == 16);
static_assert(offsetof(Header, uuid) == 24);
static_assert(offsetof(Header, chunk_bytes) == 64);
static_assert(offsetof(Header, epoch) == 96);
static_assert(offsetof(Header, created) == 120);
static_assert(offsetof(Header, reserved) == 128);

Error damaged(const char* what) { return Error(Errc::kCorrupt, "superblock", what); }

std::uint32_t checksum_of(std::span<const std::byte> bytes) {
  static constexpr std::byte kZero[4]{};
  const std::size_t at = offsetof(Header, checksum);
  std::uint32_t sum = crc32c(bytes.first(at));
  sum = crc32c(kZero, sum);
  return crc32c(bytes.subspan(at + sizeof kZero), sum);
}

void append_text(std::string& out, const std::string& text) {
  append_le(out, static_cast<std::uint16_t>(text.size()));
  out += text;
}

Result<std::string> take_text(ByteReader& reader, std::size_t limit) {
  const auto size = reader.take<std::uint16_t>();
  std::string text(as_text(reader.take_bytes(size)));
  if (reader.failed() || size > limit || text.find('\0') != std::string::npos) return damaged("a text in it");
  return text;
}

std::string bits_of(std::uint64_t bits) {
  std::string text;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((bits >> bit & 1) != 0) text += (text.empty() ? "" : ", ") + std::to_string(bit);
  }
  return text;
}

Result<void> check_header(const Header& header, std::size_t size) {
  if (header.magic != kMagic) return damaged("it does not begin with the magic number");
  if (header.length != size) return damaged("its length is not the one it states");
  return success();
}

Result<void> check_fields(const Superblock& sb) {
  if (sb.uuid.is_zero()) return damaged("the uuid is zero");
  if (sb.chunk_bytes % kBlockBytes != 0 || sb.chunk_bytes < kMinChunkBytes || sb.chunk_bytes > kMaxChunkBytes) {
    return damaged("the chunk size");
  }
  const auto& journal = sb.journal;
  if (!std::has_single_bit(journal.slot_bytes) || journal.slot_bytes < 256 || journal.slot_bytes > 65536 ||
      journal.slot_count < 2 || journal.slot_count > 1048576) {
    return damaged("the journal's geometry");
  }
  if (sb.nodes.empty()) return damaged("it names no memory node");
  return success();
}

Error local_error(const char* where, const std::string& path, int number) {
  return Error(errc_from_errno(number), where, path + ": " + std::strerror(number));
}

Result<void> write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return local_error("superblock write", path, errno);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return success();
}

Result<void> sync_directory(const std::string& directory) {
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return local_error("superblock write", directory, errno);
  return success();
}

// The first line of a lock file, which may name a path.
std::string read_text(int fd) {
  char buffer[PATH_MAX + 128];
  const ssize_t n = ::pread(fd, buffer, sizeof buffer, 0);
  std::string text(buffer, n > 0 ? static_cast<std::size_t>(n) : 0);
  return text.substr(0, text.find('\n'));
}

}  // namespace

Result<Superblock> parse_superblock(std::span<const std::byte> bytes) {
  Header header;
  if (bytes.size() < sizeof header) return damaged("it is too short");
  if (bytes.size() > kMaxFileSize) return damaged("it is too long");
  std::memcpy(&header, bytes.data(), sizeof header);
  RETURN_IF_ERROR(check_header(header, bytes.size()));
  if (header.checksum != checksum_of(bytes)) return Error(Errc::kChecksum, "superblock");
  if (header.version != kVersion) {
    return Error(Errc::kVersion, "superblock", "format version " + std::to_string(header.version));
  }
  if (const auto unknown = header.incompat & ~kKnownIncompat; unknown != 0) {
    return Error(Errc::kUnsupportedFeature, "superblock", "incompat feature bit " + bits_of(unknown));
  }
  for (std::uint8_t byte : header.reserved) {
    if (byte != 0) return damaged("reserved bytes are in use");
  }
  Superblock sb;
  std::memcpy(sb.uuid.bytes.data(), header.uuid, sizeof header.uuid);
  std::memcpy(sb.key.bytes.data(), header.key, sizeof header.key);
  sb.compat = header.compat;
  sb.ro_compat = header.ro_compat;
  sb.incompat = header.incompat;
  sb.chunk_bytes = header.chunk_bytes;
  sb.name_hash_seed = header.name_hash_seed;
  sb.epoch = MountEpoch(header.epoch);
  sb.journal = {header.slot_bytes, header.slot_count};
  sb.local_bytes = header.local_bytes;
  sb.created = header.created;

  ByteReader reader(bytes.subspan(sizeof header));
  ASSIGN_OR_RETURN(sb.journal_path, take_text(reader, kMaxTextBytes));
  ASSIGN_OR_RETURN(sb.local_pool, take_text(reader, kMaxTextBytes));
  ASSIGN_OR_RETURN(sb.label, take_text(reader, kMaxLabelBytes));
  if (header.node_count > kMaxNodes) return damaged("too many memory nodes");
  for (std::uint32_t i = 0; i < header.node_count; ++i) {
    NodeRecord node;
    node.id = NodeId(reader.take<std::uint32_t>());
    ASSIGN_OR_RETURN(node.address, take_text(reader, kMaxTextBytes));
    if (node.address.empty()) return damaged("a memory node without an address");
    if (!sb.nodes.empty() && node.id <= sb.nodes.back().id) return damaged("memory nodes out of order");
    sb.nodes.push_back(std::move(node));
  }
  if (!reader.done()) return damaged("there are bytes after its end");
  RETURN_IF_ERROR(check_fields(sb));
  return sb;
}

std::string encode_superblock(const Superblock& sb) {
  Header header{};
  header.magic = kMagic;
  header.version = kVersion;
  header.node_count = static_cast<std::uint32_t>(sb.nodes.size());
  std::memcpy(header.uuid, sb.uuid.bytes.data(), sizeof header.uuid);
  std::memcpy(header.key, sb.key.bytes.data(), sizeof header.key);
  header.compat = sb.compat;
  header.ro_compat = sb.ro_compat;
  header.incompat = sb.incompat;
  header.chunk_bytes = sb.chunk_bytes;
  header.name_hash_seed = sb.name_hash_seed;
  header.epoch = sb.epoch.value();
  header.slot_bytes = sb.journal.slot_bytes;
  header.slot_count = sb.journal.slot_count;
  header.local_bytes = sb.local_bytes;
  header.created = sb.created;

  std::string out(sizeof header, '\0');
  append_text(out, sb.journal_path);
  append_text(out, sb.local_pool);
  append_text(out, sb.label);
  for (const NodeRecord& node : sb.nodes) {
    append_le(out, node.id.value());
    append_text(out, node.address);
  }
  header.length = static_cast<std::uint32_t>(out.size());
  std::memcpy(out.data(), &header, sizeof header);
  header.checksum = checksum_of(as_bytes(out));
  std::memcpy(out.data(), &header, sizeof header);
  return out;
}

Result<Superblock> load_superblock(const std::string& directory) {
  const std::string path = directory + "/superblock";
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) return Error(Errc::kNotFormatted, "superblock", directory);
    return local_error("superblock read", path, errno);
  }
  std::string bytes;
  char buffer[8192];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return local_error("superblock read", path, errno);
    if (n == 0) break;
    bytes.append(buffer, static_cast<std::size_t>(n));
    if (bytes.size() > kMaxFileSize) break;
  }
  auto parsed = parse_superblock(as_bytes(bytes));
  if (!parsed.ok()) {
    Error error = std::move(parsed).error();
    error.detail = path + (error.detail.empty() ? "" : ": " + error.detail);
    return error;
  }
  return parsed;
}

Result<void> store_superblock(const std::string& directory, const Superblock& superblock) {
  const std::string bytes = encode_superblock(superblock);
  // A superblock that could not be read back is never put in place of a good one.
  auto readable = parse_superblock(as_bytes(bytes));
  if (!readable.ok()) return Error(Errc::kInvalid, "superblock write", readable.error().message());
  const std::string path = directory + "/superblock";
  const std::string fresh = path + ".new";
  {
    UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd.valid()) return local_error("superblock write", fresh, errno);
    RETURN_IF_ERROR(write_all(fd.get(), bytes, fresh));
    if (::fsync(fd.get()) != 0) return local_error("superblock write", fresh, errno);
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) return local_error("superblock write", path, errno);
  return sync_directory(directory);
}

Result<UniqueFd> lock_directory(const std::string& directory, LockMode mode, const std::string& purpose) {
  const std::string path = directory + "/lock";
  const bool exclusive = mode == LockMode::kExclusive;
  UniqueFd fd(::open(path.c_str(), (exclusive ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0600));
  if (!fd.valid() && !exclusive && errno == ENOENT) {
    // Nobody has ever had it open for writing. A reader makes no file, so it locks the directory itself.
    struct stat st;
    if (::stat((directory + "/superblock").c_str(), &st) != 0) {
      return Error(Errc::kNotFormatted, "lock", directory);
    }
    fd.reset(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  if (!fd.valid()) return local_error("lock", path, errno);
  if (::flock(fd.get(), (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return local_error("lock", path, errno);
    // The text in the file is the last exclusive holder's; whether it still holds it, a shared attempt tells.
    const bool readers = exclusive && ::flock(fd.get(), LOCK_SH | LOCK_NB) == 0;
    const std::string holder = readers ? "being read by another program" : read_text(fd.get());
    return Error(Errc::kLocked, "lock", directory + (holder.empty() ? "" : " (" + holder + ")"));
  }
  if (exclusive) RETURN_IF_ERROR(say_lock_purpose(fd, purpose));
  return fd;
}

Result<void> say_lock_purpose(const UniqueFd& lock, const std::string& purpose) {
  const std::string text = purpose + ", pid " + std::to_string(::getpid()) + "\n";
  // In this order, and by one write: whoever reads meanwhile finds a first line that is whole.
  if (::pwrite(lock.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()) ||
      ::ftruncate(lock.get(), static_cast<off_t>(text.size())) != 0) {
    return local_error("lock", purpose, errno);
  }
  return success();
}

std::optional<LockHolder> lock_holder(const std::string& directory) {
  const UniqueFd fd(::open((directory + "/lock").c_str(), O_RDONLY | O_CLOEXEC));
  struct stat st;
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0) return std::nullopt;
  LockHolder holder;
  holder.purpose = read_text(fd.get());
  const std::size_t mark = holder.purpose.rfind("pid ");
  if (mark == std::string::npos) return std::nullopt;
  holder.pid = std::atoi(holder.purpose.c_str() + mark + 4);
  // "1: FLOCK ADVISORY WRITE 17 08:01:4711 0 EOF": the text stays when its writer ends. Some file systems have other
  // numbers of devices here than for stat(2), so that the pid and the inode have to do.
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, advisory, mode, place;
    int pid = 0;
    if (!(words >> number >> kind >> advisory >> mode >> pid >> place)) continue;
    if (kind == "FLOCK" && mode == "WRITE" && pid == holder.pid && place.ends_with(":" + std::to_string(st.st_ino))) {
      return holder;
    }
  }
  return std::nullopt;
}

std::string journal_path_of(const std::string& directory, const Superblock& superblock) {
  if (superblock.journal_path.empty()) return directory + "/journal";
  if (superblock.journal_path.front() == '/') return superblock.journal_path;
  return directory + "/" + superblock.journal_path;
}

std::string node_address_of(const std::string& directory, const NodeRecord& node) {
  for (std::string_view scheme : {"shm:", "unix:"}) {
    if (!node.address.starts_with(scheme)) continue;
    const std::string path = node.address.substr(scheme.size());
    if (path.empty() || path.front() == '/') return node.address;
    return std::string(scheme).append(directory).append("/").append(path);
  }
  return node.address;
}

}  // namespace rmemfs
