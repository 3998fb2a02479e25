#include "memnode/pool_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>

#include "util/log.h"
#include "util/medium.h"

namespace rmemfs {
namespace {

constexpr const char* kWhere = "pool";
constexpr std::uint64_t kGiantPage = std::uint64_t{1} << 30;

std::string mib(std::uint64_t bytes) {
  char text[40];
  std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

Error failed(const std::string& path, const char* what) {
  const int number = errno;
  return Error(errc_from_errno(number), kWhere, path + ": " + what + ": " + std::strerror(number));
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// A pool that calls itself persistent must not be in this host's memory. What cannot be looked at is left to open().
Result<void> check_persistent(const std::string& path) {
  auto found = memory_file_system(path);
  if (!found.ok()) found = memory_file_system(parent_of(path));
  if (!found.ok() || found->empty()) return success();
  return Error(Errc::kNotSupported, kWhere,
               path + " is on " + std::string(*found) +
                   ", in this host's memory, and does not survive its restart: give it without pmem:");
}

std::optional<std::uint64_t> meminfo(std::string_view wanted) {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::uint64_t number = 0;
  for (std::string unit; file >> key >> number && std::getline(file, unit);) {
    if (key == wanted) return number;
  }
  return std::nullopt;
}

// What the host can still give without swapping; UINT64_MAX when it does not say.
std::uint64_t available_memory() {
  const auto kib = meminfo("MemAvailable:");
  return kib ? *kib << 10 : UINT64_MAX;
}

Result<void> check_memory(std::uint64_t bytes) {
  const std::uint64_t available = available_memory();
  if (bytes <= available) return success();
  return Error(Errc::kNoMemory, kWhere,
               "not enough memory: " + mib(available) + " available, " + mib(bytes) + " asked");
}

struct Medium {
  bool memory = false;  // tmpfs: its pages are the host's memory
  std::uint64_t granule = kPoolPage;
  std::uint64_t free_bytes = 0;
};

Result<Medium> medium_of(int fd, const std::string& path) {
  struct statfs status;
  if (::fstatfs(fd, &status) != 0) return failed(path, "statfs");
  Medium medium;
  medium.memory = status.f_type == TMPFS_MAGIC;
  if (status.f_type == HUGETLBFS_MAGIC) medium.granule = static_cast<std::uint64_t>(status.f_bsize);
  medium.free_bytes = static_cast<std::uint64_t>(status.f_bavail) * static_cast<std::uint64_t>(status.f_bsize);
  return medium;
}

// Reserves the whole file, so that no later store finds its file system full.
Result<void> reserve(int fd, const std::string& path, std::uint64_t bytes, const Medium& medium) {
  const Error no_room(Errc::kNoSpace, kWhere,
                      std::string("not enough ") + (medium.memory ? "memory" : "room") + " in " + parent_of(path) +
                          ": " + mib(medium.free_bytes) + " free, " + mib(bytes) + " asked");
  if (medium.free_bytes < bytes) return no_room;
  if (medium.memory) RETURN_IF_ERROR(check_memory(bytes));
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return failed(path, "ftruncate");
  while (::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0) {
    if (errno == EINTR) continue;
    if (errno == ENOSPC || errno == ENOMEM) return no_room;
    return failed(path, "fallocate");
  }
  return success();
}

Result<void> lock(int fd, const std::string& path) {
  const Error held(Errc::kLocked, kWhere, path + " is held by another rmemd");
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return errno == EWOULDBLOCK ? held : failed(path, "flock");
  // Between our open() and flock() another node may have given this file its name, or have removed it.
  struct stat ours, named;
  if (::fstat(fd, &ours) != 0) return failed(path, "fstat");
  if (::stat(path.c_str(), &named) != 0 || ours.st_dev != named.st_dev || ours.st_ino != named.st_ino) return held;
  return success();
}

}  // namespace

std::array<std::byte, 16> host_boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  if (!(file >> text)) return {};
  const Result<Uuid> id = Uuid::parse(text);
  return id.ok() ? id->bytes : std::array<std::byte, 16>{};
}

Result<std::unique_ptr<PoolMemory>> PoolMemory::open(const PoolOptions& options) {
  if (options.path.empty()) return open_anonymous(options);
  if (options.hugepages == Hugepages::k2M || options.hugepages == Hugepages::k1G) {
    return Error(Errc::kInvalid, kWhere, "huge pages are for memory without a file; put the file on hugetlbfs instead");
  }
  if (options.persistent && !options.forced) RETURN_IF_ERROR(check_persistent(options.path));
  UniqueFd fd(::open(options.path.c_str(), O_RDWR | O_CLOEXEC));
  if (fd.valid()) return open_existing(options, std::move(fd));
  if (errno != ENOENT) return failed(options.path, "open");
  return open_new(options);
}

Result<std::unique_ptr<PoolMemory>> PoolMemory::open_anonymous(const PoolOptions& options) {
  if (options.data_bytes == 0) return Error(Errc::kInvalid, kWhere, "a new pool needs a size");
  switch (options.hugepages) {
    case Hugepages::kOff:
      return open_anonymous(options, kPoolPage);
    case Hugepages::k2M:
      return open_anonymous(options, kHugePage);
    case Hugepages::k1G:
      return open_anonymous(options, kGiantPage);
    case Hugepages::kAuto:
      break;
  }
  if (meminfo("HugePages_Total:").value_or(0) == 0) return open_anonymous(options, kPoolPage);
  auto huge = open_anonymous(options, kHugePage);
  if (huge.ok()) return huge;
  log::info("the pool is on ordinary pages: {}", huge.error().detail);
  return open_anonymous(options, kPoolPage);
}

Result<std::unique_ptr<PoolMemory>> PoolMemory::open_anonymous(const PoolOptions& options, std::uint64_t page_bytes) {
  const bool huge = page_bytes != kPoolPage;
  std::unique_ptr<PoolMemory> memory(new PoolMemory);
  ASSIGN_OR_RETURN(memory->layout_, PoolLayout::make(options.data_bytes, page_bytes));
  const std::uint64_t bytes = memory->layout_.file_bytes;
  if (!huge) RETURN_IF_ERROR(check_memory(bytes));
  const unsigned pages = !huge ? 0 : MFD_HUGETLB | (page_bytes == kGiantPage ? MFD_HUGE_1GB : MFD_HUGE_2MB);
  memory->fd_.reset(::memfd_create("rmemfs-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING | pages));
  if (!memory->fd_.valid()) return failed("anonymous", "memfd_create");
  if (::ftruncate(memory->fd(), static_cast<off_t>(bytes)) != 0) return failed("anonymous", "ftruncate");
  // An agent that maps it cannot cut it short under us.
  if (::fcntl(memory->fd(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return failed("anonymous", "seal");
  }
  memory->fresh_ = true;
  // Huge pages were reserved by mapping them, and stay: given back, they might be somebody else's when needed again.
  memory->punches_ = !huge;
  memory->after_persist_ = options.after_persist;
  if (const Result<void> mapped = memory->map({}, bytes); !mapped.ok()) {
    if (!huge) return mapped.error();
    return Error(Errc::kNoMemory, kWhere,
                 "there are not " + std::to_string(bytes / page_bytes) + " free huge pages of " +
                     std::to_string(page_bytes >> 20) + " MiB (see /sys/kernel/mm/hugepages)");
  }
  if (huge) log::info("the pool is on {} huge pages of {} MiB", bytes / page_bytes, page_bytes >> 20);
  return memory;
}

Result<std::unique_ptr<PoolMemory>> PoolMemory::open_existing(const PoolOptions& options, UniqueFd fd) {
  const std::string& path = options.path;
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return failed(path, "fstat");
  const Error foreign(Errc::kExists, kWhere, path + " exists and is not a pool; it is left alone");
  if (!S_ISREG(status.st_mode)) return foreign;
  RETURN_IF_ERROR(lock(fd.get(), path));
  PoolSuperblock superblock;
  const ssize_t got = ::pread(fd.get(), &superblock, sizeof superblock, 0);
  if (got < 0) return failed(path, "read");
  if (got < 8 || !looks_like_pool(std::as_bytes(std::span(&superblock, 1)))) return foreign;
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  Result<PoolLayout> layout = got == sizeof superblock ? check_superblock(superblock, bytes)
                                                       : Error(Errc::kCorrupt, kWhere, "it is shorter than a page");
  if (!layout.ok()) {
    return Error(layout.error().code, kWhere, path + ": " + layout.error().message() + "; remove it to start anew");
  }
  if (options.data_bytes != 0 && options.data_bytes != layout->data_bytes) {
    return Error(Errc::kInvalid, kWhere,
                 path + " lends " + mib(layout->data_bytes) + ", not the " + mib(options.data_bytes) + " asked for");
  }
  if ((superblock.persistent != 0) != options.persistent) {
    return Error(Errc::kInvalid, kWhere,
                 path + (options.persistent ? " was made as ordinary memory; give it without pmem:"
                                            : " was made as persistent memory; give it as pmem:" + path));
  }
  if (!options.persistent && superblock.boot != host_boot_id()) {
    // An ordinary file outlived the host's restart; what was in memory and not in the file is gone, nobody knows what.
    log::warn("pool {} is from before the host's restart; its contents do not count, a new one is made", path);
    PoolOptions again = options;
    again.data_bytes = layout->data_bytes;
    if (::unlink(path.c_str()) != 0) return failed(path, "unlink");
    return open_new(again);
  }
  std::unique_ptr<PoolMemory> memory(new PoolMemory);
  RETURN_IF_ERROR(memory->take(std::move(fd), path));
  memory->path_ = path;
  memory->layout_ = *layout;
  memory->persistent_ = options.persistent;
  memory->after_persist_ = options.after_persist;
  RETURN_IF_ERROR(memory->map(path, bytes));
  return memory;
}

Result<std::unique_ptr<PoolMemory>> PoolMemory::open_new(const PoolOptions& options) {
  if (options.data_bytes == 0)
    return Error(Errc::kInvalid, kWhere, options.path + " does not exist; a new pool needs a size");
  const std::string forming = options.path + ".forming";
  UniqueFd fd(::open(forming.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return failed(forming, "open");
  RETURN_IF_ERROR(lock(fd.get(), forming));
  std::unique_ptr<PoolMemory> memory(new PoolMemory);
  RETURN_IF_ERROR(memory->take(std::move(fd), forming));
  memory->path_ = options.path;
  memory->forming_ = forming;  // from here on removed when something fails
  memory->persistent_ = options.persistent;
  memory->fresh_ = true;
  if (::ftruncate(memory->fd(), 0) != 0) return failed(forming, "ftruncate");
  ASSIGN_OR_RETURN(const Medium medium, medium_of(memory->fd(), forming));
  ASSIGN_OR_RETURN(memory->layout_, PoolLayout::make(options.data_bytes, medium.granule));
  RETURN_IF_ERROR(reserve(memory->fd(), options.path, memory->layout_.file_bytes, medium));
  memory->after_persist_ = options.after_persist;
  RETURN_IF_ERROR(memory->map(forming, memory->layout_.file_bytes));
  return memory;
}

Result<void> PoolMemory::take(UniqueFd locked, const std::string& path) {
  fd_.reset(::open(("/proc/self/fd/" + std::to_string(locked.get())).c_str(), O_RDWR | O_CLOEXEC));
  if (!fd_.valid()) return failed(path, "open");
  lock_ = std::move(locked);
  return success();
}

Result<void> PoolMemory::map(const std::string& path, std::uint64_t size) {
  if (persistent_) {
    ASSIGN_OR_RETURN(pmem_, map_persistent(path, PmemOptions{}));
    if (pmem_->size() < size) return Error(Errc::kLocalIo, kWhere, path + ": libpmem maps less than the file");
    bytes_ = {pmem_->data(), size};
    return success();
  }
  void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (address == MAP_FAILED) return failed(path, "mmap");
  bytes_ = {static_cast<std::byte*>(address), size};
  ::madvise(address, size, MADV_HUGEPAGE);  // a wish: not every kernel and file system has huge pages
  return success();
}

PoolMemory::~PoolMemory() {
  if (!forming_.empty()) ::unlink(forming_.c_str());
  if (pmem_ == nullptr && !bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

DurabilityDescriptor PoolMemory::durability() const {
  if (persistent_) return {Durability::kPersistent, PersistMethod::kNodeFlush};
  return {Durability::kVolatile, PersistMethod::kNone};
}

Result<void> PoolMemory::persist(const void* address, std::size_t length) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (pmem_ != nullptr) {
    pmem_->persist(address, length);
    if (!pmem_->drain_is_persistent()) RETURN_IF_ERROR(pmem_->sync());
  }
  if (after_persist_) after_persist_();
  return success();
}

Result<void> PoolMemory::zero(std::uint64_t offset, std::uint64_t length) {
  // Anonymous memory goes back to the host; a named file keeps the room that was reserved for it.
  if (!punches_ || ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                               static_cast<off_t>(length)) != 0) {
    std::memset(bytes_.data() + offset, 0, length);
  }
  return persist(bytes_.data() + offset, length);
}

Result<void> PoolMemory::publish() {
  if (forming_.empty()) return success();
  if (persistent_ && ::fsync(fd_.get()) != 0) return failed(forming_, "fsync");
  if (::renameat2(AT_FDCWD, forming_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) return Error(Errc::kLocked, kWhere, path_ + " was made by another rmemd in this moment");
    return failed(path_, "rename");
  }
  forming_.clear();
  if (!persistent_) return success();
  const std::string parent = parent_of(path_);
  UniqueFd directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || ::fsync(directory.get()) != 0) return failed(parent, "fsync");
  return success();
}

}  // namespace rmemfs
