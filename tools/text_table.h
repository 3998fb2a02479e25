// What programs print for people in columns, and how they write durations.
#pragma once

#include <string>
#include <vector>

namespace rmemfs {

// Rows of text in columns, one line each; those of `right` are set flush right.
std::string text_table(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right);

// "9.5 s", "3 min 20 s", "2 h 5 min", "3 d 4 h".
std::string format_duration(double seconds);
// "480 ns", "12.3 us", "1.94 ms", "2.1 s": for latencies.
std::string format_latency(double seconds);

}  // namespace rmemfs
