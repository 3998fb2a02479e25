// Mapping of persistent memory by libpmem.
//
// What each backing does:
//   kPmem, kForced  flush() and drain() are libpmem's: clwb of the lines, then sfence.
//   kFile           flush() does nothing and drain() only keeps the order of stores: the page cache outlives the
//   process,
//                   so every store that was executed survives it. Power loss is the business of sync() alone.
//
// A failed fdatasync leaves the kernel with pages that it calls clean although they never reached the disk, and the
// next fdatasync would return success without writing them. So after a failure the next sync() first makes every page
// dirty again by a store that changes nothing.
//
// A sparse file on a full disk would end the process by SIGBUS at some later store; so the blocks are allocated when
// the file is mapped, where the lack of them is an error like any other.
#include "util/pmem.h"

#include <fcntl.h>
#include <libpmem.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "util/log.h"
#include "util/unique_fd.h"

namespace rmemfs {
namespace {

constexpr std::size_t kPageBytes = 4096;

// One atomic read-modify-write of a byte by its own value; in assembler where the compiler could drop it.
void touch(std::byte* address) {
#if defined(__x86_64__)
  asm volatile("lock; orb $0, %0" : "+m"(*address));
#else
  auto* byte = reinterpret_cast<unsigned char*>(address);
  unsigned char value = __atomic_load_n(byte, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(byte, &value, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
#endif
}

class MappedMemory final : public PersistentMemory {
 public:
  MappedMemory(std::byte* data, std::size_t size, Backing backing, UniqueFd fd, bool read_only)
      : PersistentMemory(data, size, backing), fd_(std::move(fd)), read_only_(read_only) {}
  ~MappedMemory() override {
    if (read_only_)
      ::munmap(data_, size_);
    else
      pmem_unmap(data_, size_);
  }
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;

  void flush(const void* address, std::size_t length) override {
    if (backing_ != Backing::kFile) pmem_flush(address, length);
  }
  void drain() override {
    if (backing_ != Backing::kFile)
      pmem_drain();
    else
      std::atomic_thread_fence(std::memory_order_release);
  }

  Result<void> sync() override {
    if (backing_ != Backing::kFile || read_only_) return success();
    if (failed_.exchange(false)) {
      for (std::size_t at = 0; at < size_; at += kPageBytes) touch(data_ + at);
    }
    while (::fdatasync(fd_.get()) != 0) {
      if (errno == EINTR) continue;
      failed_ = true;
      log::error("fdatasync of a mapped file failed: {}", std::strerror(errno));
      return Error(Errc::kLocalIo, "fdatasync", std::strerror(errno));
    }
    return success();
  }

 private:
  const UniqueFd fd_;
  const bool read_only_;
  std::atomic<bool> failed_{false};  // the last sync failed; what it should have written is in memory only
};

Error file_error(const char* where, const std::string& path, int number) {
  return Error(errc_from_errno(number), where, path + ": " + std::strerror(number));
}

// Gives the file all its blocks. A character device (device DAX) has them.
Result<void> allocate(int fd, const std::string& path, std::size_t size) {
  int number;
  do number = ::posix_fallocate(fd, 0, static_cast<off_t>(size));
  while (number == EINTR);
  if (number != 0) return file_error("allocate the mapped file", path, number);
  return success();
}

// libpmem opens files for writing only, so a read-only mapping is the kernel's.
Result<std::unique_ptr<PersistentMemory>> map_read_only(const std::string& path, UniqueFd fd, std::size_t size) {
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return file_error("map", path, errno);
  return std::unique_ptr<PersistentMemory>(std::make_unique<MappedMemory>(
      static_cast<std::byte*>(data), size, PersistentMemory::Backing::kFile, std::move(fd), true));
}

Result<std::unique_ptr<PersistentMemory>> map_open_file(const std::string& path, UniqueFd fd,
                                                        const PmemOptions& options) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return file_error("map", path, errno);
  if (S_ISREG(status.st_mode)) {
    if (options.create) {
      RETURN_IF_ERROR(allocate(fd.get(), path, options.size));
    } else {
      if (status.st_size == 0) return Error(Errc::kCorrupt, "map", path + ": the file is empty");
      if (options.read_only) return map_read_only(path, std::move(fd), static_cast<std::size_t>(status.st_size));
      RETURN_IF_ERROR(allocate(fd.get(), path, static_cast<std::size_t>(status.st_size)));
    }
  }

  std::size_t length = 0;
  int is_pmem = 0;
  void* data = pmem_map_file(path.c_str(), 0, 0, 0, &length, &is_pmem);
  if (data == nullptr) {
    const int number = errno;
    log::error("pmem_map_file {}: {}", path, pmem_errormsg());
    return file_error("map", path, number);
  }
  using Backing = PersistentMemory::Backing;
  const Backing backing = is_pmem != 0 ? Backing::kPmem : options.force_pmem ? Backing::kForced : Backing::kFile;
  return std::unique_ptr<PersistentMemory>(
      std::make_unique<MappedMemory>(static_cast<std::byte*>(data), length, backing, std::move(fd), false));
}

}  // namespace

Result<std::unique_ptr<PersistentMemory>> map_persistent(const std::string& path, const PmemOptions& options) {
  if (options.create && (options.size == 0 || options.read_only)) {
    return Error(Errc::kInvalid, "map", path + ": a new file needs a size and is writable");
  }
  const int flags = O_CLOEXEC | (options.read_only ? O_RDONLY : O_RDWR) | (options.create ? O_CREAT | O_EXCL : 0);
  UniqueFd fd(::open(path.c_str(), flags, 0600));
  if (!fd.valid()) return file_error("open", path, errno);
  auto memory = map_open_file(path, std::move(fd), options);
  if (!memory.ok() && options.create) ::unlink(path.c_str());
  return memory;
}

}  // namespace rmemfs
