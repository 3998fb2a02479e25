// The data plane: asynchronous one-sided operations on remote regions.
//
// A Connection is one lane's logical link to one memory node (a queue pair; a TCP stream; a mapping). It connects when
// first used, reconnects by itself, and never blocks. Operations go to a region by {region, offset}; no CPU of the node
// decides anything over shm and verbs, and over tcp the node's target checks bounds, permission, key and epoch.
//
// Invariants:
//   C1  post() accepts an operation and owns it until it is completed, either by returning kCompleted or by a later
//       poll(). Every operation is completed exactly once, at the latest shortly after its deadline. (A process that
//       was frozen does not count that time: the deadlines of what it has under way are put off by it.)
//   C2  A completed WRITE is *visible*: a later READ by anybody sees it. It is not *persistent*: only a completed
//       PERSIST of the same region on the same Connection makes earlier completed WRITEs persistent, and only as far as
//       the region's descriptor promises.
//       A PERSIST speaks for what was written in the same boot of the node's host (Operation::boot): what was written
//       in an earlier one may be gone, although the region is there.
//   C3  Operations on one Connection complete in any order. Two operations on overlapping bytes are the caller's to
//   order
//       (by waiting for the first).
//   C4  After a broken link, unfinished READ, WRITE and PERSIST are posted again until their deadline; an unfinished
//       COMPARE_SWAP is failed with kUnreachable, because it may have happened.
//   C5  A WRITE that failed with kDeadline or kUnreachable never lands after its deadline, nor after the same session
//       (see SessionId) has connected again. Over tcp the node refuses it: a request carries its deadline in the node's
//       clock (NodeClock; TargetStream's S5 has the window that remains), and the node ends a session's older stream
//       before it accepts the new one. Over shm an operation is done inside post() or not at all. Over verbs nothing is
//       sent any more (the queue pair is destroyed first), and what the network carries may land for the life of a
//       packet (VerbsConnection). When it failed before
//       its deadline (kUnreachable, kCancelled) or has none, it may land until the earlier of the two: the caller does
//       not reuse the target bytes (Manager::quarantine).
//   C6  A region of another generation, a stale epoch, a wrong key, a read-only region or bytes outside the region fail
//       the operation at once with kRegionLost, kFenced, kRefused, kNotPermitted or kOutOfBounds.
//
// Thread-safety: a Connection belongs to one thread. Source of the nouns: librpma.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "util/clock.h"
#include "util/ids.h"
#include "util/result.h"

namespace rmemfs {

// What a region survives, and how a completed WRITE there becomes persistent.
enum class Durability : std::uint8_t { kVolatile = 0, kSaved = 1, kPersistent = 2 };
enum class PersistMethod : std::uint8_t { kNone = 0, kReadAfterWrite = 1, kNodeFlush = 2, kNativeFlush = 3 };

struct DurabilityDescriptor {
  Durability durability = Durability::kVolatile;
  PersistMethod method = PersistMethod::kNone;
  auto operator<=>(const DurabilityDescriptor&) const = default;
};

// Their memory: what a lease gave us. Not ours to dereference. Immutable once made.
struct RemoteRegion {
  RegionId id;
  Generation generation;
  AccessKey key;
  std::uint64_t length_bytes = 0;
  std::uint64_t address = 0;  // pool offset (shm); the others ask the node (verbs: V3 of VerbsConnection)
  std::uint32_t rkey = 0;     // not used: a key of the node's device does not outlive the node's process
  DurabilityDescriptor durability;
};

enum class OperationKind : std::uint8_t { kRead, kWrite, kPersist, kCompareSwap };

// A longer READ or WRITE is refused with kInvalid: it would hold up everything else on its stream.
inline constexpr std::size_t kMaxOperationBytes = std::size_t{16} << 20;

// One operation, owned by the caller, alive and unmoved from post() until it completes.
struct Operation {
  OperationKind kind = OperationKind::kRead;
  const RemoteRegion* region = nullptr;
  std::uint64_t offset = 0;      // in the region; kCompareSwap: multiple of 8
  std::byte* buffer = nullptr;   // kRead: where to; kWrite: where from (not written to)
  std::size_t length_bytes = 0;  // kRead, kWrite; kPersist: 0 means the whole region
  std::uint64_t expected = 0;    // kCompareSwap
  std::uint64_t desired = 0;     // kCompareSwap
  std::uint64_t previous = 0;    // kCompareSwap result: the value found; equal to expected means swapped
  TimePoint deadline = kNoDeadline;

  std::uint64_t boot = 0;           // result: the node's RegionSource::boot(); 0: none, or not known
  bool ok = false;                  // result, valid once completed
  Errc error = Errc::kUnreachable;  // result when !ok

  void* owner = nullptr;  // the caller's; the Connection does not touch it
};

enum class Posted : std::uint8_t { kCompleted, kPending };

struct ConnectionStatistics {
  std::uint64_t reads = 0, writes = 0, persists = 0, swaps = 0;
  std::uint64_t read_bytes = 0, written_bytes = 0;
  std::uint64_t reconnects = 0, failures = 0;
  // verbs: what was posted to the device, in how many calls, and how many completions were asked for.
  std::uint64_t work_requests = 0, doorbells = 0, signalled = 0;
};

class Connection {
 public:
  virtual ~Connection() = default;  // fails what is unfinished with kCancelled, without a callback

  // kCompleted: done, look at op.ok; it will not be returned by poll(). kPending: poll() returns it later.
  virtual Posted post(Operation& op) = 0;
  // Sends what post() gathered (doorbell batching). Call once after a burst of posts, before sleeping.
  virtual void submit() = 0;
  // Starts to connect, and over shm to find the region, although nothing is posted: who does it early does not depend
  // on the node's process later. Over verbs the region's place is shared (RegionPlaces), over tcp there is none.
  virtual void prepare(const RemoteRegion&) {}
  // Moves things forward without blocking (progress, deadlines, reconnection); appends completed operations to `done`.
  virtual void poll(std::vector<Operation*>& done) = 0;
  // Readable (EPOLLIN) whenever poll() would do something; -1 if operations always complete inside post().
  // The descriptor is the same for the connection's whole life.
  virtual int event_fd() const = 0;
  virtual std::size_t outstanding() const = 0;
  virtual ConnectionStatistics statistics() const = 0;
};

// Who speaks: a session is one lane of one mount. A node that accepts a session's new stream has ended its older ones.
struct SessionId {
  Uuid file_system;
  MountEpoch epoch;
  std::uint32_t lane = 0;
};

enum class TransportKind : std::uint8_t { kShm, kTcp, kVerbs };

// "shm:/run/rmemd.sock", "tcp://host:7471", "rdma://host:7471". IPv6 hosts in brackets.
struct NodeAddress {
  TransportKind transport = TransportKind::kShm;
  std::string path;  // shm: the socket's path
  std::string host;  // others
  std::uint16_t port = 0;
  static Result<NodeAddress> parse(std::string_view text);  // kInvalid with the text
  std::string to_string() const;
};

class LocalMemory;
class RegionPlaces;

struct ConnectOptions {
  SessionId session;
  AccessKey file_system_key;  // proves the right to speak for the file system
  std::uint32_t connect_timeout_ms = 2000;
  std::uint32_t max_outstanding = 1024;  // posts beyond wait inside the Connection
  // verbs: what operations usually have; the device's resends end within it.
  std::uint32_t deadline_ms = 10000;
  // verbs: the memory that operations use without a copy; shared by a process's connections. Null: all is copied.
  std::shared_ptr<LocalMemory> local_memory;
  // verbs: where regions are; shared by a process's connections. Null: this one's own.
  std::shared_ptr<RegionPlaces> region_places;
};

// Makes a connection of the address's kind. Does not connect yet, so a dead node does not delay a mount.
// kNotSupported with the reason when this machine lacks the transport (verbs: no RDMA device).
Result<std::unique_ptr<Connection>> make_connection(const NodeAddress& address, const ConnectOptions& options);

// Tries to connect to a kVerbs address, and lets go again; blocks, at most for `timeout_ms`. kNotSupported: there is no
// RDMA between the two, with the reason (no device here, none that leads there, nobody who listens for it); kDeadline:
// the node does not answer; kFenced, kRefused, kVersion: the node said so. Use a lane number that no connection has.
Result<void> probe_verbs(const NodeAddress& address, const ConnectOptions& options, std::uint32_t timeout_ms);

}  // namespace rmemfs
