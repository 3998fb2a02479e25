// RocksDB's own library as a program on the mount: synced writes that are acknowledged in a file outside, and the proof
// that every one of them is there.
//
// usage: rocksdb_load fill DIRECTORY LOG SEED MODE    writes until it is killed or a write fails (status 2)
//        rocksdb_load check DIRECTORY LOG SEED MODE   after any number of fills with the same LOG
// MODE: buffered, mapped (reads and writes through mappings), direct (no page cache), or recycled (log files used
// again).
//
// The model: writer W makes its round I of the keys W/0 ... W/kKeys-1, in one batch with the counter W/count; a key's
// value tells its writer, round and key. LOG gets "W I" after the write returned. After a crash the counter is at least
// what LOG says, at most one more, and every key is of the round that the counter says. Single threaded but for the
// writers; each writer owns its keys.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <rocksdb/db.h>
#include <rocksdb/file_checksum.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

namespace {

constexpr int kWriters = 3;
constexpr int kKeys = 40;   // of each round
constexpr int kRings = 50;  // round I writes the keys of ring I % kRings, so that the store grows to a known size

[[noreturn]] void die(const std::string& what) {
  std::cerr << what << '\n';
  std::exit(1);
}

void must(const rocksdb::Status& status, const std::string& what) {
  if (!status.ok()) die(what + ": " + status.ToString());
}

std::string key_of(int writer, long ring, int key) {
  return std::to_string(writer) + "/" + std::to_string(ring) + "/" + std::to_string(key * 7919 % kKeys);
}

std::string count_of(int writer) { return std::to_string(writer) + "/count"; }

// Bytes that do not compress, and whose length changes from round to round.
std::string value_of(unsigned seed, int writer, long round, int key) {
  std::string value = std::to_string(round) + ":";
  unsigned long long state = (seed * 31ULL + static_cast<unsigned>(writer)) * 1000003 +
                             static_cast<unsigned long long>(round) * 1009 + static_cast<unsigned>(key) + 1;
  const size_t length = 20 + (static_cast<size_t>(round) * 37 + static_cast<size_t>(key) * 101) % 900;
  while (value.size() < length) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    value.push_back(static_cast<char>(state >> 56));
  }
  return value;
}

rocksdb::Options options_of(const std::string& mode) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.paranoid_file_checks = true;
  options.file_checksum_gen_factory = rocksdb::GetFileChecksumGenCrc32cFactory();
  options.write_buffer_size = 512 << 10;
  options.target_file_size_base = 256 << 10;
  options.max_bytes_for_level_base = 1 << 20;
  options.level0_file_num_compaction_trigger = 2;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kNoCompression;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocksdb::BlockBasedTableOptions table;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  if (mode == "mapped") {
    options.allow_mmap_reads = true;
    options.allow_mmap_writes = true;
  } else if (mode == "direct") {
    options.use_direct_reads = true;
    options.use_direct_io_for_flush_and_compaction = true;
  } else if (mode == "recycled") {
    options.recycle_log_file_num = 2;
    options.wal_bytes_per_sync = 64 << 10;
    options.bytes_per_sync = 64 << 10;
  } else if (mode != "buffered") {
    die("there is no mode " + mode);
  }
  return options;
}

std::unique_ptr<rocksdb::DB> open_store(const rocksdb::Options& options, const std::string& directory) {
  rocksdb::DB* store = nullptr;
  must(rocksdb::DB::Open(options, directory, &store), "open");
  return std::unique_ptr<rocksdb::DB>(store);
}

long read_count(rocksdb::DB& store, int writer) {
  std::string text;
  const rocksdb::Status status = store.Get({}, count_of(writer), &text);
  if (status.IsNotFound()) return 0;
  must(status, count_of(writer));
  return std::strtol(text.c_str(), nullptr, 10);
}

int fill(const std::string& directory, const std::string& log, unsigned seed, const std::string& mode) {
  const std::unique_ptr<rocksdb::DB> store = open_store(options_of(mode), directory);
  const int acknowledged = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (acknowledged < 0) die("cannot write " + log);
  std::atomic<bool> failed = false;
  std::vector<std::thread> writers;
  for (int writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer] {
      for (long round = read_count(*store, writer) + 1; !failed; ++round) {
        rocksdb::WriteBatch batch;
        for (int key = 0; key < kKeys; ++key)
          batch.Put(key_of(writer, round % kRings, key), value_of(seed, writer, round, key));
        batch.Put(count_of(writer), std::to_string(round));
        rocksdb::WriteOptions synced;
        synced.sync = true;
        const rocksdb::Status status = store->Write(synced, &batch);
        if (!status.ok()) {
          std::cerr << "write: " << status.ToString() << '\n';
          failed = true;
          return;
        }
        const std::string line = std::to_string(writer) + " " + std::to_string(round) + "\n";
        if (write(acknowledged, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
          die("cannot write the log");
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  return 2;
}

// Every key of every writer is of the round that the writer's counter says.
void check_values(rocksdb::DB& store, unsigned seed, const std::map<int, long>& acknowledged, const char* when) {
  size_t expected = 0;
  for (int writer = 0; writer < kWriters; ++writer) {
    const long count = read_count(store, writer);
    const long told = acknowledged.at(writer);
    if (count < told || count > told + 1)
      die(std::string(when) + ": writer " + std::to_string(writer) + " is at " + std::to_string(count) +
          ", acknowledged was " + std::to_string(told));
    expected += 1;
    for (long ring = 0; ring < kRings; ++ring) {
      const long last = count - (count - ring + kRings) % kRings;  // the last round of this ring
      if (last < 1) continue;
      for (int key = 0; key < kKeys; ++key) {
        std::string value;
        must(store.Get({}, key_of(writer, ring, key), &value), key_of(writer, ring, key));
        if (value != value_of(seed, writer, last, key))
          die(std::string(when) + ": key " + key_of(writer, ring, key) + " has another value");
        ++expected;
      }
    }
  }
  const std::unique_ptr<rocksdb::Iterator> all(store.NewIterator({}));
  size_t found = 0;
  for (all->SeekToFirst(); all->Valid(); all->Next()) ++found;
  must(all->status(), "iterate");
  if (found != expected)
    die(std::string(when) + ": " + std::to_string(found) + " keys, not " + std::to_string(expected));
}

int check(const std::string& directory, const std::string& log, unsigned seed, const std::string& mode) {
  std::map<int, long> acknowledged;
  long total = 0;
  std::ifstream lines(log);
  int writer = 0;
  for (long round = 0; lines >> writer >> round; ++total) acknowledged[writer] = round;
  if (acknowledged.size() != kWriters) die("not every writer was acknowledged");
  const std::unique_ptr<rocksdb::DB> store = open_store(options_of(mode), directory);
  check_values(*store, seed, acknowledged, "after opening");
  rocksdb::ReadOptions reading;
  reading.verify_checksums = true;
  reading.fill_cache = false;
  must(store->VerifyChecksum(reading), "VerifyChecksum");
  // The library cannot do this through mappings, on any file system.
  if (mode != "mapped") must(store->VerifyFileChecksums(reading), "VerifyFileChecksums");
  rocksdb::CompactRangeOptions everything;
  everything.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
  must(store->CompactRange(everything, nullptr, nullptr), "CompactRange");
  check_values(*store, seed, acknowledged, "after a compaction");
  if (mode != "mapped") must(store->VerifyFileChecksums(reading), "VerifyFileChecksums after a compaction");
  must(store->Close(), "close");
  std::cout << total << " batches of " << kKeys << " keys\n";
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count != 6) die("usage: rocksdb_load fill|check DIRECTORY LOG SEED MODE");
  const std::string what = words[1];
  const auto seed = static_cast<unsigned>(std::strtoul(words[4], nullptr, 10));
  if (what == "fill") return fill(words[2], words[3], seed, words[5]);
  if (what == "check") return check(words[2], words[3], seed, words[5]);
  die("there is no " + what);
}
