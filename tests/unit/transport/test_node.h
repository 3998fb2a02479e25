// A memory node small enough for tests and benchmarks: regions in a memfd, a real listening socket, a real target.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "transport/connection.h"
#include "transport/target.h"

namespace rmemfs::test {

inline constexpr std::uint64_t kPageBytes = 4096;  // the pool's first page holds the epoch word

// One file system's regions in one pool file.
class TestRegions final : public RegionSource {
 public:
  explicit TestRegions(std::uint64_t pool_bytes);
  ~TestRegions() override;

  Result<void> admit(const SessionId& session, const AccessKey& file_system_key) override;
  Result<std::shared_ptr<TargetRegion>> open_region(const Uuid& file_system, RegionId id, Generation generation,
                                                    const AccessKey& key) override;
  Result<int> pool_fd(std::uint64_t& size_bytes) override;
  Result<std::uint64_t> epoch_word_offset(const Uuid& file_system) override;
  std::uint64_t boot() const override { return host_boot; }

  struct Shape {
    std::uint64_t length = 1 << 20;
    bool writable = true;
    DurabilityDescriptor durability;
  };
  RemoteRegion lease(const Shape& shape);
  void revoke(const RemoteRegion& region);
  void reopen(const RemoteRegion& region);  // revokes it, and offers the same memory by the same name again
  void start_over();                        // another generation with nothing leased, as a node that came back empty
  void raise_epoch(MountEpoch epoch);       // the word and the check; does not end sessions by itself
  std::byte* memory(const RemoteRegion& region) { return data_ + region.address; }
  // The same bytes in a second mapping, as another process has them: to look while the node may be writing, which is a
  // race of two machines and not of two threads.
  std::byte* seen_from_outside(const RemoteRegion& region) { return outside_ + region.address; }

  const Uuid file_system = Uuid::random();
  const AccessKey file_system_key = AccessKey::random();
  std::atomic<std::uint64_t> host_boot{1};
  std::atomic<std::uint64_t> persists{0};
  std::atomic<std::uint64_t> last_persisted{0};  // bytes of the last one
  std::atomic<bool> persists_held{false};        // a PERSIST stays where it is, and its worker's other streams with it
  std::atomic<std::uint64_t> admissions{0};
  std::atomic<bool> admissions_held{false};    // nobody is told yes or no
  std::atomic<std::uint64_t> claimed_size{0};  // told to agents instead of the true size, if not 0
  std::atomic<Target*> target{nullptr};        // its older sessions end when a newer epoch is admitted

 private:
  class Region;
  struct Leased {
    RemoteRegion remote;
    std::shared_ptr<Region> region;
  };
  UniqueFd file_;
  std::byte* data_ = nullptr;
  std::byte* outside_ = nullptr;
  const std::uint64_t size_;
  std::mutex mutex_;
  std::map<std::uint64_t, Leased> leased_;  // guarded by mutex_, as all below
  Generation generation_{1};
  std::uint64_t next_id_ = 1;
  std::uint64_t next_offset_ = kPageBytes;
  MountEpoch epoch_{1};
};

// This machine's address on an RDMA device; empty when there is none.
std::string rdma_address();

// Listens and gives streams to a target. The address stays the same through stop() and start().
class TestNode {
 public:
  TestNode(TransportKind transport, TestRegions& regions, Target::Options options = {});
  ~TestNode();
  void start();
  void stop();             // closes listener and target
  void freeze();           // accepts and never answers: new streams are kept and not given to the target
  UniqueFd take_frozen();  // the next stream that a frozen node accepted, for a test to answer it
  void break_streams();    // ends what is connected, as a cut network would
  const NodeAddress& address() const { return address_; }
  Target& target() { return *target_; }

 private:
  void listen();
  void start_verbs();
  void run();
  const TransportKind transport_;
  TestRegions& regions_;
  const Target::Options options_;
  NodeAddress address_;
  UniqueFd listener_;
  UniqueFd stop_event_;
  std::unique_ptr<Target> target_;
  std::atomic<bool> frozen_{false};
  std::mutex mutex_;
  std::vector<UniqueFd> accepted_;  // duplicates, to break them; guarded by mutex_
  std::thread thread_;
};

// Drives one connection from one thread and collects what completes.
class Driver {
 public:
  Driver(const NodeAddress& address, const ConnectOptions& options);
  explicit Driver(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
  Connection& connection() { return *connection_; }
  // Posts; a completion, early or late, is counted in done().
  void post(Operation& op);
  void poll_once(int wait_ms = 0);
  // Until nothing is outstanding; false after `limit_ms`.
  bool drain(int limit_ms = 10000);
  bool run(Operation& op, int limit_ms = 10000);  // posts and drains; whether it completed
  std::size_t completed() const { return completed_; }
  std::vector<Operation*> take_done() { return std::exchange(done_, {}); }

 private:
  std::unique_ptr<Connection> connection_;
  std::vector<Operation*> done_;
  std::size_t posted_ = 0;
  std::size_t completed_ = 0;
};

ConnectOptions options_for(const TestRegions& regions, std::uint32_t lane = 0, MountEpoch epoch = MountEpoch(1));

Operation read_of(const RemoteRegion& region, std::uint64_t offset, std::byte* buffer, std::size_t length);
Operation write_of(const RemoteRegion& region, std::uint64_t offset, const std::byte* buffer, std::size_t length);
Operation swap_of(const RemoteRegion& region, std::uint64_t offset, std::uint64_t expected, std::uint64_t desired);
Operation persist_of(const RemoteRegion& region);

}  // namespace rmemfs::test
