// Very many small things in a directory.
//   many create DIR N | many stat DIR N | many count DIR N | many delete DIR N      status 0 when all N are as they
//   must be
// Names are spread over DIR itself: the directory is meant to be large.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string verb = argv[1], dir = argv[2];
  const long count = std::atol(argv[3]);
  auto name = [&](long i) { return dir + "/entry-" + std::to_string(i); };
  auto failed = [&](long i) {
    std::printf("%s %s: %s\n", verb.c_str(), name(i).c_str(), std::strerror(errno));
    return 1;
  };
  if (verb == "create" && ::mkdir(dir.c_str(), 0755) < 0 && errno != EEXIST) return failed(0);
  if (verb == "count") {
    std::vector<bool> seen(static_cast<std::size_t>(count));
    DIR* d = ::opendir(dir.c_str());
    if (!d) return failed(0);
    long found = 0;
    while (dirent* entry = ::readdir(d)) {
      if (entry->d_name[0] == '.') continue;
      long i = std::atol(entry->d_name + 6);
      if (i < 0 || i >= count || seen[static_cast<std::size_t>(i)]) {
        std::printf("unexpected or twice: %s\n", entry->d_name);
        return 1;
      }
      seen[static_cast<std::size_t>(i)] = true;
      ++found;
    }
    ::closedir(d);
    std::printf("%ld entries\n", found);
    return found == count ? 0 : 1;
  }
  for (long i = 0; i < count; ++i) {
    struct stat st {};
    if (verb == "create") {
      int fd = ::open(name(i).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
      if (fd < 0 || ::close(fd) < 0) return failed(i);
    } else if (verb == "stat") {
      if (::stat(name(i).c_str(), &st) < 0 || st.st_size != 0) return failed(i);
    } else if (verb == "delete") {
      if (::unlink(name(i).c_str()) < 0) return failed(i);
    }
  }
  return 0;
}
