// The node's side of the data plane: what serves operations (tcp), hands out mappings (shm) or
// rkeys (verbs).
//
// memnode implements RegionSource; the targets ask it. A stream reaches a target through adopt(): the node's listener
// has accepted it and has looked at (not consumed) its first bytes, which say that it is a data-plane stream.
//
// A target calls RegionSource and TargetRegion::persist() from its own threads, and never while it holds up
// end_sessions() or quiesce(): a RegionSource may call those two from inside its methods, with locks of a rank below
// kTransport held.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "transport/connection.h"
#include "util/ids.h"
#include "util/result.h"
#include "util/unique_fd.h"

namespace rmemfs {

// A leased region as a target sees it. `memory` stays mapped while the object lives. Thread-safe.
class TargetRegion {
 public:
  virtual ~TargetRegion() = default;
  std::span<std::byte> memory;
  bool writable = true;
  DurabilityDescriptor durability;
  std::uint64_t pool_offset = 0;     // where `memory` begins in the pool file (shm)
  virtual bool revoked() const = 0;  // an atomic read; a target looks before each operation
  // Makes [offset, offset+length) persistent (pmem_persist) where that means something.
  virtual Result<void> persist(std::uint64_t offset, std::uint64_t length) = 0;
};

class RegionSource {
 public:
  virtual ~RegionSource() = default;
  // A stream introduces itself. Raises the epoch if it is newer (ending older sessions), refuses an older one (kFenced)
  // or a wrong key (kRefused).
  virtual Result<void> admit(const SessionId& session, const AccessKey& file_system_key) = 0;
  // kRegionLost (other generation, or no longer leased), kRefused (other file system or key).
  virtual Result<std::shared_ptr<TargetRegion>> open_region(const Uuid& file_system, RegionId id, Generation generation,
                                                            const AccessKey& key) = 0;
  // shm: the pool's file, to be passed to a same-host agent, and the size to map. kNotSupported if it cannot be shared.
  // The descriptor stays the source's.
  virtual Result<int> pool_fd(std::uint64_t& size_bytes) = 0;
  // shm: the offset in the pool of the 8-byte word holding this file system's current epoch: an agent reads it before
  // each operation, and refuses itself (kFenced) when it is above its own.
  virtual Result<std::uint64_t> epoch_word_offset(const Uuid& file_system) = 0;
  // Of the host's boot: another value says that the host may have lost power since, and with it completed WRITEs that
  // no PERSIST followed, whatever the regions survive. 0: not known.
  virtual std::uint64_t boot() const { return 0; }
};

// Serves many streams with a few threads. Thread-safe. Over verbs (VerbsTarget) it only answers where regions are.
class Target {
 public:
  struct Options {
    unsigned threads = 2;
    std::uint32_t handshake_timeout_ms = 5000;  // a stream that says nothing is closed
    std::uint32_t max_connections = 4096;
    std::uint32_t spin_us = 0;  // busy-poll before sleeping
    // verbs: a region's longest single registration, a power of two.
    std::uint64_t piece_bytes = std::uint64_t{1} << 30;
  };
  static Result<std::unique_ptr<Target>> make_tcp(RegionSource& regions, const Options& options);
  static Result<std::unique_ptr<Target>> make_shm(RegionSource& regions, const Options& options);
  virtual ~Target() = default;

  virtual void adopt(UniqueFd stream) = 0;
  // Ends sessions of `file_system` with an epoch below `epoch`; none of their operations lands after this returns.
  virtual void end_sessions(const Uuid& file_system, MountEpoch epoch) = 0;
  // No operation on a region that was revoked before this call is under way when it returns (then it may be zeroed).
  virtual void quiesce() = 0;
  virtual std::size_t connections() const = 0;
};

// First 8 bytes of a data-plane stream, for the listener to tell it from HTTP/2.
inline constexpr char kTcpMagic[] = "RMEMTCP1";
inline constexpr char kShmMagic[] = "RMEMSHM1";

}  // namespace rmemfs
