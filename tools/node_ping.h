// Measures a memory node's data plane with the raw provider: latency of small READs and WRITEs, bandwidth of large
// ones.
//
// It leases a region for a file system of its own making (a random uuid and key that nobody else ever has), and gives
// the region back and has the node forget that file system before it returns, in every case: success, failure,
// interruption. Should the node not answer to that, the region stays leased; `left_behind` then says so.
//
// One thread per call; blocks for what the options say, and for the timeout where the node does not answer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "transport/connection.h"
#include "util/result.h"

namespace rmemfs {

struct PingOptions {
  std::vector<std::uint64_t> latency_sizes = {8, 4096};
  std::optional<std::uint64_t> bandwidth_size = std::uint64_t{1} << 20;  // none: not measured
  std::uint32_t depth = 8;          // operations under way while bandwidth is measured
  std::uint32_t count = 1000;       // operations of a latency measurement
  double seconds = 1;               // of each measurement, at most
  bool spin = true;                 // ask for completions without pause; otherwise sleep until there are some
  std::uint32_t timeout_ms = 5000;  // of each operation and each call
  int stop_fd = -1;                 // readable: stop measuring, give everything back and return
};

struct PingMeasurement {
  OperationKind kind = OperationKind::kRead;
  std::uint64_t size_bytes = 0;
  std::uint32_t depth = 1;
  std::uint64_t operations = 0;
  double seconds = 0;                                    // all of them together
  double min_s = 0, median_s = 0, p99_s = 0, max_s = 0;  // of one operation
  double bytes_per_second() const { return seconds > 0 ? static_cast<double>(operations * size_bytes) / seconds : 0; }
};

struct PingReport {
  std::string address;   // of the data plane
  double connect_s = 0;  // until the first operation was done
  std::uint64_t region_bytes = 0;
  std::vector<PingMeasurement> measurements;
  bool interrupted = false;  // by stop_fd; the measurements are those that were finished
  std::string left_behind;   // what the node could not be told to give back; empty: nothing
};

// The data plane behind an address as people write it: that of "unix:PATH" is "shm:PATH". kInvalid with the text.
Result<NodeAddress> data_address_of(const std::string& address);

// kInvalid (address, sizes), kUnreachable, kDeadline, kRefused, kNoSpace, kVersion, kNotSupported (this build lacks the
// transport), kProtocol (what was read is not what was written). The detail names the address and the plane.
Result<PingReport> ping_node(const std::string& address, const PingOptions& options);

// The order statistics of `samples` (seconds of single operations; sorted here).
void summarize(std::vector<double>& samples, PingMeasurement& measurement);

}  // namespace rmemfs
