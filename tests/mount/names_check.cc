// What a file system answers to names: their lengths and bytes, links, loops, and rename over every combination of what
// is at both ends. It prints every answer, and the trees that were left; two file systems that behave alike print the
// same.
//
//   names_check DIRECTORY OTHER     DIRECTORY is empty; OTHER: a directory on another file system
//
// Nothing of what it prints is a particular file system's own: no inode numbers, sizes of directories or times.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace {

std::string root;
std::string at(const std::string& name) { return root + "/" + name; }

std::string below(const std::string& directory, const std::string& name) {
  std::string path = directory;
  path += '/';
  path += name;
  return path;
}

const char* answer(long result) { return result < 0 ? ::strerrorname_np(errno) : "ok"; }
void print(const std::string& what, long result) { std::printf("%s: %s\n", what.c_str(), answer(result)); }

int make(const std::string& name, const std::string& text = "") {
  const int fd = ::open(at(name).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return -1;
  const bool whole = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  return ::close(fd) == 0 && whole ? 0 : -1;
}

std::vector<std::string> list(const std::string& name) {
  std::vector<std::string> names;
  DIR* d = ::opendir(at(name).c_str());
  if (d == nullptr) return names;
  while (const dirent* entry = ::readdir(d)) {
    const std::string one = entry->d_name;
    if (one != "." && one != "..") names.push_back(one);
  }
  ::closedir(d);
  std::sort(names.begin(), names.end());
  return names;
}

// Types, links, contents and names below a directory, in one line.
std::string tree(const std::string& name) {
  std::string out;
  for (const std::string& one : list(name)) {
    const std::string path = below(name, one);
    struct stat st {};
    if (::lstat(at(path).c_str(), &st) < 0) {
      out += " " + one + "!" + ::strerrorname_np(errno);
      continue;
    }
    out += " " + one;
    std::string text(100, '\0');
    if (S_ISDIR(st.st_mode)) {
      out += "/" + std::to_string(st.st_nlink) + "{" + tree(path) + " }";
    } else if (S_ISLNK(st.st_mode)) {
      const ssize_t n = ::readlink(at(path).c_str(), text.data(), text.size());
      out += "->" + text.substr(0, n < 0 ? 0 : static_cast<std::size_t>(n));
    } else if (S_ISREG(st.st_mode)) {
      const int fd = ::open(at(path).c_str(), O_RDONLY | O_CLOEXEC);
      const ssize_t n = ::read(fd, text.data(), text.size());
      ::close(fd);
      out += "=" + text.substr(0, n < 0 ? 0 : static_cast<std::size_t>(n)) + "*" + std::to_string(st.st_nlink);
    } else {
      out += "(" + std::to_string((st.st_mode & S_IFMT) >> 12) + ")";
    }
  }
  return out;
}

void empty(const std::string& name) {
  for (const std::string& one : list(name)) {
    const std::string path = below(name, one);
    struct stat st {};
    if (::lstat(at(path).c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
      empty(path);
      ::rmdir(at(path).c_str());
    } else {
      ::unlink(at(path).c_str());
    }
  }
}

// ---- names

void every_byte_makes_a_name() {
  ::mkdir(at("bytes").c_str(), 0755);
  std::vector<std::string> must;
  for (int byte = 1; byte < 256; ++byte) {
    if (byte == '/') continue;
    // Alone, and as the whole of the longest name.
    for (const std::size_t length : {std::size_t{1}, std::size_t{255}}) {
      const std::string name(length, static_cast<char>(byte));
      if (name == ".") continue;
      struct stat st {};
      if (make("bytes/" + name) < 0 || ::lstat(at("bytes/" + name).c_str(), &st) < 0) {
        print("byte " + std::to_string(byte) + ", length " + std::to_string(length), -1);
      }
      must.push_back(name);
    }
  }
  std::sort(must.begin(), must.end());
  std::printf("names of every byte are listed: %s\n", list("bytes") == must ? "yes" : "no");
  for (const std::string& name : must) {
    if (::unlink(at("bytes/" + name).c_str()) < 0) print("unlink", -1);
  }
  print("rmdir", ::rmdir(at("bytes").c_str()));
}

void names_are_at_most_255_bytes() {
  make("short", "s");
  ::mkdir(at("sub").c_str(), 0755);
  for (const std::size_t length : {255, 256, 1000, 4090}) {
    const std::string name(length, 'n'), path = at(name);
    const std::string what = std::to_string(length) + " bytes, ";
    print(what + "lookup", ::access(path.c_str(), F_OK));
    print(what + "create", make(name));
    print(what + "open", ::open(path.c_str(), O_RDONLY | O_CLOEXEC) < 0 ? -1 : 0);
    print(what + "unlink", ::unlink(path.c_str()));
    print(what + "mkdir", ::mkdir(path.c_str(), 0755));
    print(what + "rmdir", ::rmdir(path.c_str()));
    print(what + "mkfifo", ::mkfifo(path.c_str(), 0644));
    print(what + "unlink", ::unlink(path.c_str()));
    print(what + "symlink", ::symlink("x", path.c_str()));
    print(what + "unlink", ::unlink(path.c_str()));
    print(what + "link", ::link(at("short").c_str(), path.c_str()));
    print(what + "rename to another directory", ::rename(path.c_str(), at("sub/" + name).c_str()));
    print(what + "rename from", ::rename(at("sub/" + name).c_str(), at("sub/x").c_str()));
    print(what + "rename to", ::rename(at("short").c_str(), path.c_str()));
    print(what + "rename back", ::rename(path.c_str(), at("short").c_str()));
    print(what + "a file as a directory", ::access(at("short/" + name).c_str(), F_OK));
  }
  empty("");
}

void symlinks_are_at_most_4095_bytes() {
  for (const std::size_t length : {1, 255, 4094, 4095, 4096, 5000}) {
    const std::string target(length, 't');
    print("a link of " + std::to_string(length), ::symlink(target.c_str(), at("link").c_str()));
    std::string is(5000, '\0');
    const ssize_t n = ::readlink(at("link").c_str(), is.data(), is.size());
    struct stat st {};
    std::printf("read %zd, size %lld, the same: %d\n", n,
                ::lstat(at("link").c_str(), &st) == 0 ? static_cast<long long>(st.st_size) : -1,
                n == static_cast<ssize_t>(length) && is.substr(0, length) == target);
    std::printf("in a small buffer: %zd\n", ::readlink(at("link").c_str(), is.data(), 10));
    print("followed", ::access(at("link").c_str(), F_OK));
    ::unlink(at("link").c_str());
  }
  print("an empty link", ::symlink("", at("link").c_str()));
  print("readlink of a file", make("file") < 0 ? -1 : ::readlink(at("file").c_str(), root.data(), 0));
  std::vector<char> any(10);
  print("readlink of a file", ::readlink(at("file").c_str(), any.data(), any.size()));
  print("readlink of a directory", ::readlink(at(".").c_str(), any.data(), any.size()));
  empty("");
}

void links_lead_through_at_most_40() {
  make("l0", "end");
  for (int i = 1; i <= 42; ++i) {
    ::symlink(("l" + std::to_string(i - 1)).c_str(), at("l" + std::to_string(i)).c_str());
  }
  for (const int i : {1, 39, 40, 41, 42})
    print(std::to_string(i) + " links", ::access(at("l" + std::to_string(i)).c_str(), F_OK));
  ::symlink("self", at("self").c_str());
  ::symlink("ping", at("pong").c_str());
  ::symlink("pong", at("ping").c_str());
  print("a link to itself", ::access(at("self").c_str(), F_OK));
  print("a link to itself, behind", ::access(at("self/x").c_str(), F_OK));
  print("two links in a circle", ::open(at("ping").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  print("a link, not followed", ::open(at("l1").c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  print("exclusive over a link", ::open(at("self").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  print("chmod through a circle", ::chmod(at("ping").c_str(), 0600));
  print("rename of a circle", ::rename(at("ping").c_str(), at("pang").c_str()));
  empty("");
}

void counts_of_links() {
  make("one", "1");
  ::mkdir(at("many").c_str(), 0755);
  for (int i = 0; i < 3000; ++i) {
    if (::link(at("one").c_str(), at("many/" + std::to_string(i)).c_str()) < 0) print("link", -1);
  }
  struct stat st {};
  ::stat(at("many/77").c_str(), &st);
  std::printf("links: %lu\n", static_cast<unsigned long>(st.st_nlink));
  ::unlink(at("one").c_str());
  ::stat(at("many/77").c_str(), &st);
  std::printf("links: %lu\n", static_cast<unsigned long>(st.st_nlink));
  ::mkdir(at("dirs").c_str(), 0755);
  for (int i = 0; i < 1000; ++i) {
    if (::mkdir(at("dirs/" + std::to_string(i)).c_str(), 0755) < 0) print("mkdir", -1);
  }
  ::stat(at("dirs").c_str(), &st);
  std::printf("links of a directory of 1000: %lu\n", static_cast<unsigned long>(st.st_nlink));
  print("link of a directory", ::link(at("dirs").c_str(), at("dirs2").c_str()));
  print("link of a symlink itself",
        ::symlink("dirs", at("s").c_str()) < 0 ? -1 : ::link(at("s").c_str(), at("s2").c_str()));
  print("unlink of a directory", ::unlink(at("dirs").c_str()));
  print("rmdir of a full directory", ::rmdir(at("dirs").c_str()));
  print("rmdir of a file", ::rmdir(at("many/77").c_str()));
  print("rmdir of .", ::rmdir(at("dirs/.").c_str()));
  print("rmdir of ..", ::rmdir(at("dirs/1/..").c_str()));
  print("unlink of ..", ::unlink(at("dirs/1/..").c_str()));
  print("rename of .", ::rename(at("dirs/.").c_str(), at("x").c_str()));
  print("rename to ..", ::rename(at("many").c_str(), at("dirs/1/..").c_str()));
  print("mkdir of .", ::mkdir(at("dirs/.").c_str(), 0755));
  print("link to ..", ::link(at("many/77").c_str(), at("dirs/..").c_str()));
  print("mkdir with a slash", ::mkdir(at("slash///").c_str(), 0755));
  print("create with a slash", ::open(at("file/").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  print("unlink with a slash", ::unlink(at("many/77/").c_str()));
  print("rename of a file with a slash", ::rename(at("many/77/").c_str(), at("y").c_str()));
  print("rename of a file to a slash", ::rename(at("many/77").c_str(), at("y/").c_str()));
  print("rename of a directory to a slash", ::rename(at("slash").c_str(), at("slash2/").c_str()));
  print("symlink with a slash", ::symlink("x", at("sl/").c_str()));
  print("nothing", ::unlink(""));
  empty("");
}

void other_file_systems(const std::string& other) {
  make("file", "f");
  ::mkdir(at("dir").c_str(), 0755);
  const std::string there = other + "/names_check";
  print("rename of a file", ::rename(at("file").c_str(), there.c_str()));
  print("rename of a directory", ::rename(at("dir").c_str(), there.c_str()));
  print("link", ::link(at("file").c_str(), there.c_str()));
  print("link to a name that is too long", ::link(at("file").c_str(), (other + "/" + std::string(256, 'x')).c_str()));
  print("exchange", ::renameat2(AT_FDCWD, at("file").c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE));
  empty("");
}

// ---- rename

struct Kind {
  const char* name;
  std::function<void(const std::string& path)> make;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {"nothing", [](const std::string&) {}},
      {"file", [](const std::string& path) { make(path, path.substr(path.rfind('/') + 1)); }},
      {"other name of one file",
       [](const std::string& path) {
         make("shared", "shared");
         ::link(at("shared").c_str(), at(path).c_str());
       }},
      {"empty directory", [](const std::string& path) { ::mkdir(at(path).c_str(), 0755); }},
      {"directory",
       [](const std::string& path) {
         ::mkdir(at(path).c_str(), 0755);
         make(path + "/in", "in");
       }},
      {"directory of directories",
       [](const std::string& path) {
         ::mkdir(at(path).c_str(), 0755);
         ::mkdir(at(path + "/in").c_str(), 0755);
       }},
      {"link to nothing", [](const std::string& path) { ::symlink("none", at(path).c_str()); }},
      {"link to a directory", [](const std::string& path) { ::symlink(".", at(path).c_str()); }},
      {"fifo", [](const std::string& path) { ::mkfifo(at(path).c_str(), 0644); }},
  };
  return all;
}

void rename_of_everything_to_everything() {
  const struct {
    const char* name;
    unsigned flags;
  } modes[] = {{"rename", 0},
               {"no replace", RENAME_NOREPLACE},
               {"exchange", RENAME_EXCHANGE},
               {"both", RENAME_NOREPLACE | RENAME_EXCHANGE}};
  for (const auto& mode : modes) {
    for (const bool across : {false, true}) {
      for (const Kind& from : kinds()) {
        for (const Kind& to : kinds()) {
          ::mkdir(at("d").c_str(), 0755);
          ::mkdir(at("e").c_str(), 0755);
          const std::string source = "d/a", target = across ? "e/b" : "d/b";
          from.make(source);
          to.make(target);
          // Both ends are in the kernel's cache, as they are for a program that has looked.
          struct stat st {};
          ::lstat(at(source).c_str(), &st);
          ::lstat(at(target).c_str(), &st);
          const int result = ::renameat2(AT_FDCWD, at(source).c_str(), AT_FDCWD, at(target).c_str(), mode.flags);
          std::printf("%s%s, %s to %s: %s;%s\n", mode.name, across ? " across" : "", from.name, to.name, answer(result),
                      tree("").c_str());
          empty("");
        }
      }
    }
  }
}

void directories_do_not_become_their_own_ancestors() {
  const char* paths[] = {"a", "a/b", "a/b/c", "a/b/c/d", "x", "x/y"};
  for (const unsigned flags : {0u, static_cast<unsigned>(RENAME_NOREPLACE), static_cast<unsigned>(RENAME_EXCHANGE)}) {
    for (const std::string from : paths) {
      for (const std::string to : {"a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/new", "x/y", "x/y/new", "new"}) {
        for (const char* path : paths) ::mkdir(at(path).c_str(), 0755);
        const int result = ::renameat2(AT_FDCWD, at(from).c_str(), AT_FDCWD, at(to).c_str(), flags);
        std::printf("%u %s to %s: %s;%s\n", flags, from.c_str(), to.c_str(), answer(result), tree("").c_str());
        // Every directory knows its parent.
        struct stat above {
        }, parent{};
        if (result == 0 && ::stat(at(to + "/..").c_str(), &above) == 0) {
          const auto slash = to.rfind('/');
          ::stat(at(slash == std::string::npos ? "." : to.substr(0, slash)).c_str(), &parent);
          std::printf(".. is right: %d\n", above.st_ino == parent.st_ino);
        }
        empty("");
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  root = argv[1];
  ::umask(022);
  every_byte_makes_a_name();
  names_are_at_most_255_bytes();
  symlinks_are_at_most_4095_bytes();
  links_lead_through_at_most_40();
  counts_of_links();
  other_file_systems(argv[2]);
  rename_of_everything_to_everything();
  directories_do_not_become_their_own_ancestors();
  return 0;
}
