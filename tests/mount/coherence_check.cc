// Nobody sees a stale value through one mount: what one process has the kernel keep (names, missing names, attributes,
// listings, links' targets, access lists, pages), another process changes, and the first has to see the change at once.
//
//   coherence_check DIRECTORY       prints "ok NAME" or "FAILED NAME: why" for each case; status 0 when all hold
//
// Each case warms the kernel's caches first, by looking twice. The other process is a child with descriptors of its
// own.
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <set>
#include <string>

#include "tests/mount/expect.h"

namespace {

constexpr std::size_t kPage = 4096;
std::string directory;
std::string at(const std::string& name) { return directory + "/" + name; }

// Another process does it, and has ended.
void other(const std::function<void()>& work) {
  std::fflush(stdout);
  const pid_t pid = ::fork();
  if (pid == 0) {
    try {
      work();
      ::_exit(0);
    } catch (const Failure& failure) {
      std::printf("the other process: %s\n", failure.what());
      std::fflush(stdout);
      ::_exit(1);
    }
  }
  int status = 0;
  EXPECT(::waitpid(pid, &status, 0) == pid && status == 0);
}

class Fd {
 public:
  Fd(const std::string& name, int flags) : fd_(::open(at(name).c_str(), flags | O_CLOEXEC, 0644)) { EXPECT(fd_ >= 0); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { ::close(fd_); }
  operator int() const { return fd_; }

 private:
  int fd_;
};

void make(const std::string& name, const std::string& text = "") {
  const Fd fd(name, O_RDWR | O_CREAT | O_TRUNC);
  EXPECT(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}
std::string bytes(int fd) {
  std::string text(1 << 20, '\0');
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  EXPECT(n >= 0);
  text.resize(static_cast<std::size_t>(n));
  return text;
}
std::string bytes(const std::string& name) { return bytes(Fd(name, O_RDONLY)); }
struct stat look(const std::string& name) {
  struct stat st {};
  EXPECT(::lstat(at(name).c_str(), &st) == 0);
  return st;
}
struct stat look(int fd) {
  struct stat st {};
  EXPECT(::fstat(fd, &st) == 0);
  return st;
}
bool missing(const std::string& name) { return ::access(at(name).c_str(), F_OK) < 0 && errno == ENOENT; }
bool later(const timespec& a, const timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}
std::set<std::string> list(const std::string& name) {
  std::set<std::string> names;
  DIR* d = ::opendir(at(name).c_str());
  EXPECT(d != nullptr);
  while (const dirent* entry = ::readdir(d)) {
    if (entry->d_name[0] != '.') names.insert(entry->d_name);
  }
  ::closedir(d);
  return names;
}
// As `ls -l`: attributes come along with the names.
void list_long(const std::string& name) {
  for (int i = 0; i < 2; ++i) {
    const std::string prefix = name + "/";
    for (const std::string& one : list(name)) look(prefix + one);
  }
}
class Map {
 public:
  Map(int fd, std::size_t length, int protection = PROT_READ | PROT_WRITE) : length_(length) {
    void* map = ::mmap(nullptr, length, protection, MAP_SHARED, fd, 0);
    EXPECT(map != MAP_FAILED);
    bytes_ = static_cast<char*>(map);
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
  ~Map() { ::munmap(bytes_, length_); }
  char* get() const { return bytes_; }
  std::string text(std::size_t from, std::size_t length) const { return {bytes_ + from, length}; }

 private:
  std::size_t length_;
  char* bytes_ = nullptr;
};

// ---- names

void what_was_missing_is_there_once_it_is_made() {
  const struct {
    const char* name;
    std::function<void(const std::string&)> make;
  } ways[] = {
      {"open", [](const std::string& name) { make(name); }},
      {"mkdir", [](const std::string& name) { EXPECT(::mkdir(at(name).c_str(), 0755) == 0); }},
      {"mknod", [](const std::string& name) { EXPECT(::mkfifo(at(name).c_str(), 0644) == 0); }},
      {"symlink", [](const std::string& name) { EXPECT(::symlink("x", at(name).c_str()) == 0); }},
      {"link",
       [](const std::string& name) {
         make("linked");
         EXPECT(::link(at("linked").c_str(), at(name).c_str()) == 0);
       }},
      {"rename",
       [](const std::string& name) {
         make("moved");
         EXPECT(::rename(at("moved").c_str(), at(name).c_str()) == 0);
       }},
      {"tmpfile",
       [](const std::string& name) {
         const Fd fd("", O_RDWR | O_TMPFILE);
         EXPECT(::linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(fd)).c_str(), AT_FDCWD, at(name).c_str(),
                         AT_SYMLINK_FOLLOW) == 0);
       }},
  };
  for (const auto& way : ways) {
    const std::string name = std::string("new-") + way.name;
    EXPECT(missing(name) && missing(name));
    other([&] { way.make(name); });
    look(name);
    // And away again.
    other([&] { EXPECT(::remove(at(name).c_str()) == 0); });
    EXPECT(missing(name));
    other([&] { way.make(name); });
    look(name);
  }
}

void a_renamed_name_is_missing_and_its_new_one_is_there() {
  EXPECT(::mkdir(at("from").c_str(), 0755) == 0 && ::mkdir(at("to").c_str(), 0755) == 0);
  make("from/file", "f");
  make("to/old", "old");
  EXPECT(missing("to/file") && missing("to/file"));
  const ino_t ino = look("from/file").st_ino;
  other([] { EXPECT(::rename(at("from/file").c_str(), at("to/file").c_str()) == 0); });
  EXPECT(missing("from/file") && look("to/file").st_ino == ino);
  // Over another, which is in the cache; and back to the name that is cached as missing.
  look("to/old");
  other([] { EXPECT(::rename(at("to/file").c_str(), at("to/old").c_str()) == 0); });
  EXPECT(missing("to/file") && look("to/old").st_ino == ino && bytes("to/old") == "f");
  other([] { EXPECT(::rename(at("to/old").c_str(), at("from/file").c_str()) == 0); });
  EXPECT(missing("to/old") && look("from/file").st_ino == ino);
}

void exchanged_names_are_exchanged() {
  make("ex-a", "a");
  EXPECT(::mkdir(at("ex-b").c_str(), 0755) == 0);
  make("ex-b/in");
  EXPECT(S_ISREG(look("ex-a").st_mode) && S_ISDIR(look("ex-b").st_mode) && missing("ex-b/no"));
  other([] { EXPECT(::renameat2(AT_FDCWD, at("ex-a").c_str(), AT_FDCWD, at("ex-b").c_str(), RENAME_EXCHANGE) == 0); });
  EXPECT(S_ISDIR(look("ex-a").st_mode) && S_ISREG(look("ex-b").st_mode) && bytes("ex-b") == "a");
  look("ex-a/in");
}

void a_new_directory_of_an_old_name_has_none_of_its_names() {
  EXPECT(::mkdir(at("again").c_str(), 0755) == 0);
  EXPECT(missing("again/a"));
  make("again/b", "old");
  look("again/b");
  other([] {
    EXPECT(::unlink(at("again/b").c_str()) == 0 && ::rmdir(at("again").c_str()) == 0);
    EXPECT(::mkdir(at("again").c_str(), 0700) == 0);
    make("again/a", "new");
  });
  EXPECT(bytes("again/a") == "new" && missing("again/b") && (look("again").st_mode & 0777) == 0700);
}

void a_name_made_anew_is_another_file() {
  make("anew", "old");
  const ino_t ino = look("anew").st_ino;
  EXPECT(bytes("anew") == "old");
  other([] {
    EXPECT(::unlink(at("anew").c_str()) == 0);
    make("anew", "a new one");
  });
  EXPECT(look("anew").st_ino != ino && look("anew").st_size == 9 && bytes("anew") == "a new one");
}

void a_symlink_made_anew_has_its_new_target() {
  EXPECT(::symlink("one", at("sym").c_str()) == 0);
  char target[16];
  for (int i = 0; i < 2; ++i) EXPECT(::readlink(at("sym").c_str(), target, sizeof target) == 3);
  other([] { EXPECT(::unlink(at("sym").c_str()) == 0 && ::symlink("number two", at("sym").c_str()) == 0); });
  EXPECT(::readlink(at("sym").c_str(), target, sizeof target) == 10 && std::memcmp(target, "number two", 10) == 0);
}

void a_cached_listing_follows_every_change() {
  EXPECT(::mkdir(at("ls").c_str(), 0755) == 0);
  std::set<std::string> must;
  for (int i = 0; i < 300; ++i) {
    must.insert("f" + std::to_string(i));
    make("ls/f" + std::to_string(i));
  }
  const auto same = [&] { return list("ls") == must && list("ls") == must; };
  EXPECT(same());
  other([] { make("ls/new"); });
  must.insert("new");
  EXPECT(same());
  other([] { EXPECT(::unlink(at("ls/f7").c_str()) == 0); });
  must.erase("f7");
  EXPECT(same());
  other([] { EXPECT(::rename(at("ls/f8").c_str(), at("ls/F8").c_str()) == 0); });
  must.erase("f8");
  must.insert("F8");
  EXPECT(same());
  other([] { EXPECT(::rename(at("ls/f9").c_str(), at("out").c_str()) == 0); });
  must.erase("f9");
  EXPECT(same());
  other([] { EXPECT(::rename(at("out").c_str(), at("ls/f10").c_str()) == 0); });
  EXPECT(same());
  other([] { EXPECT(::link(at("ls/f11").c_str(), at("ls/l11").c_str()) == 0); });
  must.insert("l11");
  EXPECT(same());
}

void attributes_that_came_with_a_listing_follow_every_change() {
  EXPECT(::mkdir(at("ll").c_str(), 0755) == 0);
  for (int i = 0; i < 100; ++i) make("ll/" + std::to_string(i), "x");
  list_long("ll");
  other([] {
    EXPECT(::chmod(at("ll/1").c_str(), 0600) == 0 && ::truncate(at("ll/2").c_str(), 1000) == 0);
    EXPECT(::chown(at("ll/3").c_str(), 12, 34) == 0 && ::unlink(at("ll/4").c_str()) == 0);
    EXPECT(::link(at("ll/5").c_str(), at("ll/five").c_str()) == 0);
    EXPECT(::unlink(at("ll/6").c_str()) == 0 && ::mkdir(at("ll/6").c_str(), 0755) == 0);
    const timespec times[2] = {{1000000000, 0}, {1000000001, 5}};
    EXPECT(::utimensat(AT_FDCWD, at("ll/7").c_str(), times, 0) == 0);
  });
  EXPECT((look("ll/1").st_mode & 0777) == 0600 && look("ll/2").st_size == 1000);
  EXPECT(look("ll/3").st_uid == 12 && look("ll/3").st_gid == 34 && missing("ll/4"));
  EXPECT(look("ll/5").st_nlink == 2 && S_ISDIR(look("ll/6").st_mode) && look("ll/7").st_mtim.tv_nsec == 5);
  // A listing made now does not bring anything back.
  list_long("ll");
  EXPECT(missing("ll/4") && look("ll/2").st_size == 1000 && look("ll/5").st_nlink == 2);
}

// ---- attributes

void the_count_of_links_follows_the_other_names() {
  make("n1", "x");
  EXPECT(::link(at("n1").c_str(), at("n2").c_str()) == 0 && ::link(at("n1").c_str(), at("n3").c_str()) == 0);
  const Fd fd("n1", O_RDONLY);
  EXPECT(look("n1").st_nlink == 3 && look(fd).st_nlink == 3);
  const timespec changed = look("n1").st_ctim;
  ::usleep(20000);
  other([] { EXPECT(::unlink(at("n2").c_str()) == 0); });
  EXPECT(look("n1").st_nlink == 2 && look(fd).st_nlink == 2 && later(look("n1").st_ctim, changed));
  make("over");
  other([] { EXPECT(::rename(at("over").c_str(), at("n3").c_str()) == 0); });
  EXPECT(look("n1").st_nlink == 1 && look(fd).st_nlink == 1);
  other([] { EXPECT(::unlink(at("n1").c_str()) == 0); });
  EXPECT(look(fd).st_nlink == 0 && bytes(fd) == "x");
}

void a_directory_follows_what_is_made_in_it() {
  EXPECT(::mkdir(at("pa").c_str(), 0755) == 0 && ::mkdir(at("pb").c_str(), 0755) == 0);
  EXPECT(look("pa").st_nlink == 2 && look("pb").st_nlink == 2);
  timespec before = look("pa").st_mtim;
  const auto moved = [&] {
    const timespec now = look("pa").st_mtim;
    const bool is = later(now, before);
    before = now;
    ::usleep(12000);
    return is;
  };
  ::usleep(12000);
  other([] { EXPECT(::mkdir(at("pa/s").c_str(), 0755) == 0); });
  EXPECT(look("pa").st_nlink == 3 && moved());
  other([] { make("pa/f"); });
  EXPECT(moved());
  other([] { EXPECT(::link(at("pa/f").c_str(), at("pa/g").c_str()) == 0); });
  EXPECT(moved());
  other([] { EXPECT(::rename(at("pa/g").c_str(), at("pa/h").c_str()) == 0); });
  EXPECT(moved());
  other([] { EXPECT(::rename(at("pa/s").c_str(), at("pb/s").c_str()) == 0); });
  EXPECT(look("pa").st_nlink == 2 && look("pb").st_nlink == 3 && moved());
  other([] { EXPECT(::unlink(at("pa/h").c_str()) == 0); });
  EXPECT(moved());
  other([] { EXPECT(::rmdir(at("pb/s").c_str()) == 0); });
  EXPECT(look("pb").st_nlink == 2);
}

void size_and_times_follow_another_descriptors_writes() {
  make("grow", "x");
  const Fd fd("grow", O_RDWR);
  EXPECT(look("grow").st_size == 1 && look(fd).st_blocks == 8);
  timespec before = look(fd).st_mtim;
  ::usleep(12000);
  other([] {
    const Fd writer("grow", O_WRONLY | O_APPEND);
    EXPECT(::write(writer, std::string(10000, 'y').data(), 10000) == 10000);
  });
  EXPECT(look(fd).st_size == 10001 && look("grow").st_size == 10001 && look("grow").st_blocks == 24);
  EXPECT(later(look("grow").st_mtim, before) && later(look("grow").st_ctim, before));
  before = look(fd).st_mtim;
  ::usleep(12000);
  other([] {
    const Fd writer("grow", O_WRONLY | O_DIRECT);
    alignas(kPage) static char page[kPage];
    std::memset(page, 'z', kPage);
    EXPECT(::pwrite(writer, page, kPage, 5 * kPage) == kPage);
  });
  EXPECT(look(fd).st_size == 6 * kPage && look(fd).st_blocks == 32 && later(look("grow").st_mtim, before));
  before = look(fd).st_mtim;
  ::usleep(12000);
  other([] {
    const Fd writer("grow", O_RDWR);
    const Map map(writer, kPage);
    map.get()[3] = '!';
    EXPECT(::msync(map.get(), kPage, MS_SYNC) == 0);
  });
  EXPECT(later(look("grow").st_mtim, before) && later(look(fd).st_ctim, before) && look(fd).st_size == 6 * kPage);
  EXPECT(bytes(fd)[3] == '!');
}

void a_file_that_shrank_and_grew_again_reads_as_zeros() {
  make("cut", std::string(5 * kPage, 'a'));
  const Fd fd("cut", O_RDWR);
  const Map map(fd, 5 * kPage);
  EXPECT(bytes(fd) == std::string(5 * kPage, 'a') && map.text(4 * kPage, 2) == "aa");
  other([] { EXPECT(::truncate(at("cut").c_str(), kPage + 100) == 0); });
  EXPECT(look(fd).st_size == kPage + 100 && bytes(fd) == std::string(kPage + 100, 'a'));
  char byte;
  EXPECT(::pread(fd, &byte, 1, kPage + 100) == 0);
  EXPECT(map.text(kPage + 99, 2) == std::string("a\0", 2));
  other([] { EXPECT(::truncate(at("cut").c_str(), 5 * kPage) == 0); });
  const std::string must = std::string(kPage + 100, 'a') + std::string(4 * kPage - 100, '\0');
  EXPECT(look("cut").st_size == 5 * kPage && bytes(fd) == must && map.text(0, 5 * kPage) == must);
  other([] { const Fd again("cut", O_WRONLY | O_TRUNC); });
  EXPECT(look(fd).st_size == 0 && look(fd).st_blocks == 0 && bytes(fd).empty());
}

void rights_follow_chmod_chown_and_access_lists() {
  make("rights", "x");
  EXPECT(::chmod(at("rights").c_str(), 0644) == 0 && ::chmod(directory.c_str(), 0755) == 0);
  const auto readable = [] {
    bool is = false;
    std::fflush(stdout);
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (::setgid(1234) != 0 || ::setuid(1234) != 0) ::_exit(2);
      ::_exit(::open(at("rights").c_str(), O_RDONLY | O_CLOEXEC) >= 0 ? 0 : errno == EACCES ? 1 : 2);
    }
    int status = 0;
    EXPECT(::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) < 2);
    is = WEXITSTATUS(status) == 0;
    return is;
  };
  EXPECT(readable() && readable());
  other([] { EXPECT(::chmod(at("rights").c_str(), 0600) == 0); });
  EXPECT(!readable());
  other([] { EXPECT(::chown(at("rights").c_str(), 1234, 0) == 0); });
  EXPECT(readable());
  other([] { EXPECT(::chown(at("rights").c_str(), 0, 0) == 0); });
  EXPECT(!readable());
  // user::rw-, user:1234:r--, group::---, mask::r--, other::---
  struct Entry {
    std::uint16_t tag, rights;
    std::uint32_t id;
  };
  const Entry entries[] = {{1, 6, ~0u}, {2, 4, 1234}, {4, 0, ~0u}, {0x10, 4, ~0u}, {0x20, 0, ~0u}};
  std::string value("\2\0\0\0", 4);
  value.append(reinterpret_cast<const char*>(entries), sizeof entries);
  other(
      [&] { EXPECT(::setxattr(at("rights").c_str(), "system.posix_acl_access", value.data(), value.size(), 0) == 0); });
  EXPECT(readable() && (look("rights").st_mode & 0777) == 0640);
  other([] { EXPECT(::chmod(at("rights").c_str(), 0600) == 0); });  // the mask
  EXPECT(!readable());
  other([] { EXPECT(::removexattr(at("rights").c_str(), "system.posix_acl_access") == 0); });
  other([] { EXPECT(::chmod(at("rights").c_str(), 0604) == 0); });
  EXPECT(readable());
  char is[16];
  EXPECT(::getxattr(at("rights").c_str(), "user.x", is, sizeof is) < 0 && errno == ENODATA);
  other([] { EXPECT(::setxattr(at("rights").c_str(), "user.x", "v", 1, 0) == 0); });
  EXPECT(::getxattr(at("rights").c_str(), "user.x", is, sizeof is) == 1 && is[0] == 'v');
}

// ---- bytes and where they are

std::string with(std::string text, std::size_t from, const std::string& part) {
  return text.replace(from, part.size(), part);
}

void cached_pages_follow_punches_zeroed_ranges_and_copies() {
  const std::string a(6 * kPage, 'a');
  make("pages", a);
  make("source", std::string(6 * kPage, 's'));
  const Fd fd("pages", O_RDWR);
  const Map map(fd, 6 * kPage);
  std::string must = a;
  const auto same = [&] { return bytes(fd) == must && map.text(0, 6 * kPage) == must && bytes("pages") == must; };
  EXPECT(same());
  other([] {
    const Fd puncher("pages", O_RDWR);
    EXPECT(::fallocate(puncher, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 2 * kPage) == 0);
  });
  must = with(must, 100, std::string(2 * kPage, '\0'));
  EXPECT(same());
  other([] {
    const Fd zeroer("pages", O_RDWR);
    EXPECT(::fallocate(zeroer, FALLOC_FL_ZERO_RANGE, 3 * kPage - 7, 50) == 0);
  });
  must = with(must, 3 * kPage - 7, std::string(50, '\0'));
  EXPECT(same());
  other([] {
    const Fd from("source", O_RDONLY), to("pages", O_RDWR);
    off64_t in = 10, out = 4 * kPage - 5;
    EXPECT(::copy_file_range(from, &in, to, &out, 5000, 0) == 5000);
  });
  must = with(must, 4 * kPage - 5, std::string(5000, 's'));
  EXPECT(same());
  // What a mapping stored and nobody wrote back is what is copied, and is not lost around a copy's edges.
  std::memcpy(map.get() + 10, "stored", 6);
  std::memcpy(map.get() + 4 * kPage - 100, "kept", 4);
  must = with(with(must, 10, "stored"), 4 * kPage - 100, "kept");
  other([] {
    const Fd both("pages", O_RDWR);
    off64_t in = 0, out = 4 * kPage;
    EXPECT(::copy_file_range(both, &in, both, &out, 50, 0) == 50);
  });
  must = with(must, 4 * kPage, must.substr(0, 50));
  EXPECT(same());
}

void direct_and_buffered_and_mapped_see_one_file() {
  make("one", std::string(4 * kPage, 'b'));
  const Fd fd("one", O_RDWR), direct("one", O_RDWR | O_DIRECT);
  const Map map(fd, 4 * kPage);
  std::string must(4 * kPage, 'b');
  const auto same = [&] { return bytes(fd) == must && map.text(0, 4 * kPage) == must && bytes(direct) == must; };
  EXPECT(same());
  other([] {
    const Fd writer("one", O_RDWR | O_DIRECT);
    EXPECT(::pwrite(writer, std::string(kPage, 'D').data(), kPage, kPage) == kPage);
  });
  must = with(must, kPage, std::string(kPage, 'D'));
  EXPECT(same() && bytes("one") == must);
  other([] {
    const Fd writer("one", O_RDWR);
    EXPECT(::pwrite(writer, "buffered", 8, 2 * kPage - 4) == 8);
  });
  must = with(must, 2 * kPage - 4, "buffered");
  EXPECT(same());
  other([] {
    const Fd writer("one", O_RDWR);
    const Map there(writer, 4 * kPage);
    std::memcpy(there.get() + 3 * kPage + 9, "mapped", 6);  // nobody writes it back
  });
  must = with(must, 3 * kPage + 9, "mapped");
  EXPECT(same() && bytes("one") == must);
  // Opened again: the pages were kept, and were kept right.
  other([] {
    const Fd writer("one", O_RDWR | O_DIRECT);
    EXPECT(::pwrite(writer, std::string(kPage, 'E').data(), kPage, 3 * kPage) == kPage);
  });
  must = with(must, 3 * kPage, std::string(kPage, 'E'));
  EXPECT(bytes("one") == must && same());
}

void holes_and_blocks_are_true_before_anything_is_fsynced() {
  const Fd fd("holes", O_RDWR | O_CREAT);
  EXPECT(look(fd).st_blocks == 0 && ::ftruncate(fd, 1 << 20) == 0 && look(fd).st_blocks == 0);
  EXPECT(::lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO && ::lseek(fd, 0, SEEK_HOLE) == 0);
  other([] {
    const Fd writer("holes", O_RDWR);
    EXPECT(::pwrite(writer, std::string(kPage, 'w').data(), kPage, 64 * kPage) == kPage);
  });
  EXPECT(::lseek(fd, 0, SEEK_DATA) == 64 * kPage && ::lseek(fd, 64 * kPage, SEEK_HOLE) == 65 * kPage);
  EXPECT(look(fd).st_blocks == 8);
  other([] {
    const Fd writer("holes", O_RDWR);
    const Map map(writer, 1 << 20);
    map.get()[100 * kPage + 5] = 'm';
    EXPECT(::msync(map.get(), 1 << 20, MS_SYNC) == 0);
  });
  EXPECT(::lseek(fd, 65 * kPage, SEEK_DATA) == 100 * kPage && look(fd).st_blocks == 16);
  other([] {
    const Fd writer("holes", O_RDWR);
    EXPECT(::fallocate(writer, FALLOC_FL_KEEP_SIZE, 0, 16 * kPage) == 0);
  });
  EXPECT(look(fd).st_blocks == 16 + 128 && ::lseek(fd, 0, SEEK_DATA) == 64 * kPage);
  other([] {
    const Fd writer("holes", O_RDWR);
    EXPECT(::fallocate(writer, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0);
  });
  EXPECT(look(fd).st_blocks == 0 && ::lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO);
  // The kernel does not ask a FUSE file system where extents are: it is refused, not answered wrongly.
  alignas(fiemap) char room[sizeof(fiemap) + 8 * sizeof(fiemap_extent)] = {};
  auto* map = reinterpret_cast<fiemap*>(room);
  map->fm_length = FIEMAP_MAX_OFFSET;
  map->fm_extent_count = 8;
  EXPECT(::ioctl(fd, FS_IOC_FIEMAP, map) < 0 && (errno == EOPNOTSUPP || errno == ENOTTY));
}

struct Case {
  const char* name;
  void (*run)();
};
#define CASE(name) \
  { #name, name }
constexpr Case kCases[] = {CASE(what_was_missing_is_there_once_it_is_made),
                           CASE(a_renamed_name_is_missing_and_its_new_one_is_there),
                           CASE(exchanged_names_are_exchanged),
                           CASE(a_new_directory_of_an_old_name_has_none_of_its_names),
                           CASE(a_name_made_anew_is_another_file),
                           CASE(a_symlink_made_anew_has_its_new_target),
                           CASE(a_cached_listing_follows_every_change),
                           CASE(attributes_that_came_with_a_listing_follow_every_change),
                           CASE(the_count_of_links_follows_the_other_names),
                           CASE(a_directory_follows_what_is_made_in_it),
                           CASE(size_and_times_follow_another_descriptors_writes),
                           CASE(a_file_that_shrank_and_grew_again_reads_as_zeros),
                           CASE(rights_follow_chmod_chown_and_access_lists),
                           CASE(cached_pages_follow_punches_zeroed_ranges_and_copies),
                           CASE(direct_and_buffered_and_mapped_see_one_file),
                           CASE(holes_and_blocks_are_true_before_anything_is_fsynced)};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  directory = argv[1];
  ::umask(022);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (::mkdir(directory.c_str(), 0755) < 0) return 2;
  int failed = 0;
  for (const Case& c : kCases) {
    try {
      c.run();
      std::printf("ok %s\n", c.name);
    } catch (const Failure& failure) {
      std::printf("FAILED %s: %s\n", c.name, failure.what());
      ++failed;
    }
  }
  return failed == 0 ? 0 : 1;
}
