// Reading a large directory while its entries come and go.
//
//   directory_check DIRECTORY ENTRIES SEED     makes DIRECTORY
//
// From POSIX: an entry that stays from opendir(3) or rewinddir(3) on is given exactly once; one that comes or goes
// meanwhile at most once (and after a rewind, according to what is there then). A position of telldir(3) stays good as
// long as the stream lives: seekdir(3) gives what followed it, and nothing that came before. Positions are good in
// another stream too, after everything was closed: who exports the file system relies on it.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace {

std::string directory;
std::mt19937_64 dice;
std::uint64_t below(std::uint64_t bound) { return dice() % bound; }

[[noreturn]] void wrong(const std::string& what) {
  std::printf("FAILED: %s%s%s\n", what.c_str(), errno != 0 ? ": " : "", errno != 0 ? std::strerror(errno) : "");
  std::exit(1);
}

void come(const std::string& name) {
  const int fd = ::open((directory + "/" + name).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) wrong("create " + name);
  ::close(fd);
}
void go(const std::string& name) {
  if (::unlink((directory + "/" + name).c_str()) < 0) wrong("unlink " + name);
}

struct Place {
  long before;
  std::string name;
};

// The next entry with the position before it; false at the end.
bool next(DIR* d, Place& place) {
  for (;;) {
    place.before = ::telldir(d);
    errno = 0;
    const dirent* entry = ::readdir(d);
    if (entry == nullptr && errno != 0) wrong("readdir");
    if (entry == nullptr) return false;
    place.name = entry->d_name;
    if (place.name != "." && place.name != "..") return true;
  }
}

DIR* open_stream() {
  DIR* d = ::opendir(directory.c_str());
  if (d == nullptr) wrong("opendir");
  return d;
}

// s*: they stay. c*: those that come and go.
bool stays(const std::string& name) { return name[0] == 's'; }

class Churn {
 public:
  // Something comes, goes, or takes another name.
  void step() {
    const auto kind = below(3);
    if (kind == 0 || names_.size() < 100) {
      names_.push_back("c" + std::to_string(next_++));
      come(names_.back());
      return;
    }
    std::swap(names_[below(names_.size())], names_.back());
    if (kind == 1) {
      go(names_.back());
      names_.pop_back();
    } else {
      const std::string name = "c" + std::to_string(next_++);
      if (::rename((directory + "/" + names_.back()).c_str(), (directory + "/" + name).c_str()) < 0) wrong("rename");
      names_.back() = name;
    }
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> names_;
  unsigned long next_ = 0;
};

std::vector<Place> read_all(DIR* d, Churn* churn) {
  std::vector<Place> places;
  std::set<std::string> seen;
  for (Place place{}; next(d, place);) {
    if (!seen.insert(place.name).second) wrong(place.name + " is given twice");
    places.push_back(place);
    if (churn != nullptr && below(4) == 0) churn->step();
  }
  return places;
}

std::size_t count_staying(const std::vector<Place>& places) {
  return static_cast<std::size_t>(
      std::count_if(places.begin(), places.end(), [](const Place& place) { return stays(place.name); }));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  directory = argv[1];
  const std::size_t entries = std::strtoull(argv[2], nullptr, 10);
  dice.seed(std::strtoull(argv[3], nullptr, 10));
  if (::mkdir(directory.c_str(), 0755) < 0) wrong("mkdir");
  for (std::size_t i = 0; i < entries; ++i) come("s" + std::to_string(i));
  Churn churn;
  for (int i = 0; i < 500; ++i) churn.step();

  DIR* d = open_stream();
  DIR* still = open_stream();  // begins before the changes, goes on through all of them
  Place first{};
  if (!next(still, first)) wrong("an empty stream");
  const auto places = read_all(d, &churn);
  if (count_staying(places) != entries) wrong(std::to_string(count_staying(places)) + " of those that stay are given");

  // A rewound stream and a new one give what is there now, exactly.
  std::set<std::string> now(churn.names().begin(), churn.names().end());
  for (std::size_t i = 0; i < entries; ++i) now.insert("s" + std::to_string(i));
  for (const bool rewound : {true, false}) {
    DIR* stream = rewound ? d : open_stream();
    if (rewound) ::rewinddir(stream);
    std::set<std::string> is;
    for (const Place& place : read_all(stream, nullptr)) is.insert(place.name);
    if (is != now) wrong(std::string(rewound ? "a rewound" : "a new") + " stream does not give what is there");
    if (!rewound) ::closedir(stream);
  }

  // Back and forth among the positions, while entries come and go. What stays follows in the same order.
  std::vector<std::size_t> staying;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (stays(places[i].name)) staying.push_back(i);
  }
  DIR* third = open_stream();
  for (int i = 0; i < 400; ++i) {
    DIR* stream = below(3) == 0 ? third : d;
    const std::size_t from = below(staying.size());
    ::seekdir(stream, places[staying[from]].before);
    const std::size_t steps = std::min<std::size_t>(staying.size() - from, 1 + below(300));
    for (std::size_t k = 0; k < steps;) {
      Place place{};
      if (!next(stream, place)) wrong("the stream ends early after seekdir");
      if (!stays(place.name)) continue;
      if (place.name != places[staying[from + k]].name)
        wrong(place.name + " follows, not " + places[staying[from + k]].name);
      ++k;
    }
    churn.step();
  }
  // From a position to the end: everything that stays and came behind it.
  const std::size_t middle = staying.size() / 3;
  ::seekdir(third, places[staying[middle]].before);
  if (count_staying(read_all(third, &churn)) != staying.size() - middle)
    wrong("not all that follows a position is given");
  if (count_staying(read_all(still, &churn)) + (stays(first.name) ? 1 : 0) != entries)
    wrong("a long stream misses some");
  ::closedir(third);
  ::closedir(still);
  ::closedir(d);

  // Everything that was read goes while the stream stands in the middle; the rest is given.
  d = open_stream();
  std::set<std::string> gone;
  Place place{};
  for (std::size_t i = 0; i < entries / 2 && next(d, place); ++i) {
    go(place.name);
    gone.insert(place.name);
  }
  for (const Place& rest : read_all(d, nullptr)) {
    if (!gone.insert(rest.name).second) wrong(rest.name + " is given although it was given and is gone");
    if (stays(rest.name)) go(rest.name);
  }
  for (std::size_t i = 0; i < entries; ++i) {
    if (!gone.contains("s" + std::to_string(i))) wrong("s" + std::to_string(i) + " was missed");
  }
  ::closedir(d);
  std::printf("%zu entries, %zu others that came and went\n", entries, churn.names().size());
  return 0;
}
