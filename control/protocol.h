// Version numbers of the control plane. A change that an older program would misread takes a new number.
#pragma once

#include <cstdint>

namespace rmemfs {
inline constexpr std::uint32_t kNodeProtocolVersion = 1;
inline constexpr std::uint32_t kAdminProtocolVersion = 1;
}  // namespace rmemfs
