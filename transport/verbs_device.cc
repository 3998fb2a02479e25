#include "transport/verbs_device.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "transport/local_memory.h"
#include "util/log.h"

namespace rmemfs {

std::optional<std::string> why_no_rdma() {
  int count = 0;
  ibv_device** const list = ::ibv_get_device_list(&count);
  if (list != nullptr) ::ibv_free_device_list(list);
  if (list == nullptr || count == 0) return "this machine has no RDMA device";
  if (::access("/dev/infiniband/rdma_cm", R_OK | W_OK) != 0) {
    return std::string("/dev/infiniband/rdma_cm: ") + std::strerror(errno) + " (modprobe rdma_ucm)";
  }
  return std::nullopt;
}

Result<std::shared_ptr<VerbsDevice>> VerbsDevice::make(ibv_context* context) {
  std::shared_ptr<VerbsDevice> device(new VerbsDevice(context));
  if (::ibv_query_device(context, &device->attributes_) != 0) {
    return Error(errc_from_errno(errno), "RDMA device", ::ibv_get_device_name(context->device));
  }
  device->domain_.reset(::ibv_alloc_pd(context));
  if (device->domain_ == nullptr) {
    return Error(errc_from_errno(errno), "protection domain", ::ibv_get_device_name(context->device));
  }
  return device;
}

Result<MemoryRegistration> VerbsDevice::register_own(std::span<std::byte> memory) {
  MemoryRegistration registration(::ibv_reg_mr(domain_.get(), memory.data(), memory.size(), IBV_ACCESS_LOCAL_WRITE));
  if (registration != nullptr) return registration;
  const int number = errno;
  log::error("registering {} KiB with {}: {}{}", memory.size() >> 10, ::ibv_get_device_name(context_->device),
             std::strerror(number), number == ENOMEM ? " (is the limit on locked memory, ulimit -l, too low?)" : "");
  return Error(Errc::kNoMemory, "memory registration");
}

void VerbsDevice::announce(std::span<std::byte> arena, std::size_t unit_bytes) {
  Arena entry;
  entry.memory = arena;
  entry.unit_bytes = unit_bytes;
  entry.units.resize(arena.size() / unit_bytes);
  entry.refused.resize(entry.units.size());
  MutexLock lock(mutex_);
  arenas_.push_back(std::move(entry));
}

void VerbsDevice::withdraw(std::span<std::byte> arena) {
  MutexLock lock(mutex_);
  const auto found = std::find_if(arenas_.begin(), arenas_.end(),
                                  [&](const Arena& entry) { return entry.memory.data() == arena.data(); });
  if (found == arenas_.end()) return;
  stamp_.fetch_add(1, std::memory_order_acq_rel);
  arenas_.erase(found);
}

std::optional<VerbsDevice::Local> VerbsDevice::find(const std::byte* data, std::size_t size) {
  MutexLock lock(mutex_);
  for (Arena& arena : arenas_) {
    if (data < arena.memory.data() || data >= arena.memory.data() + arena.memory.size()) continue;
    const std::size_t index = static_cast<std::size_t>(data - arena.memory.data()) / arena.unit_bytes;
    std::byte* const begin = arena.memory.data() + index * arena.unit_bytes;
    const Local local{begin, begin + arena.unit_bytes, 0, stamp_.load(std::memory_order_relaxed)};
    if (index >= arena.units.size() || !local.holds(data, size) || arena.refused[index]) return std::nullopt;
    MemoryRegistration& unit = arena.units[index];
    if (unit == nullptr) {
      unit.reset(::ibv_reg_mr(domain_.get(), begin, arena.unit_bytes, IBV_ACCESS_LOCAL_WRITE));
      if (unit == nullptr) {
        arena.refused[index] = true;
        if (!told_refused_) {
          log::warn("request buffers cannot be registered with {}: {}; data is copied (see ulimit -l)",
                    ::ibv_get_device_name(context_->device), std::strerror(errno));
        }
        told_refused_ = true;
        return std::nullopt;
      }
    }
    Local registered = local;
    registered.lkey = unit->lkey;
    return registered;
  }
  return std::nullopt;
}

LocalMemory::LocalMemory() = default;
LocalMemory::~LocalMemory() = default;

void LocalMemory::announce(std::span<std::byte> arena, std::size_t unit_bytes) {
  MutexLock lock(mutex_);
  arenas_.push_back({arena, unit_bytes});
  for (const auto& device : devices_) device->announce(arena, unit_bytes);
}

void LocalMemory::withdraw(std::span<std::byte> arena) {
  MutexLock lock(mutex_);
  std::erase_if(arenas_, [&](const Arena& entry) { return entry.memory.data() == arena.data(); });
  for (const auto& device : devices_) device->withdraw(arena);
}

Result<std::shared_ptr<VerbsDevice>> LocalMemory::device(ibv_context* context) {
  MutexLock lock(mutex_);
  for (const auto& device : devices_) {
    if (device->context() == context) return device;
  }
  ASSIGN_OR_RETURN(std::shared_ptr<VerbsDevice> device, VerbsDevice::make(context));
  for (const Arena& arena : arenas_) device->announce(arena.memory, arena.unit_bytes);
  devices_.push_back(device);
  return device;
}

}  // namespace rmemfs
