// Buffers that FUSE requests are read into. A buffer belongs to its request until the reply: a WRITE's payload goes to
// the memory nodes from where it arrived, a READ's data lands where the reply is sent from.
//
// Layout: the request begins kRequestHead bytes before a page, so that a WRITE's payload (behind its two headers)
// begins on the page; a READ's request is shorter than that head, so its data may use everything from the page on.
// The buffers are announced to LocalMemory, one unit each, so that an RDMA device reads and writes them without a copy.
// Thread: the lane's only. Bound: `count` buffers; without a free one the lane stops reading requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "transport/local_memory.h"

namespace rmemfs {

inline constexpr std::size_t kMaxRequestData = 1u << 20;  // max_write, and the longest read

class RequestBuffers;

class BufferRef {
 public:
  BufferRef() = default;
  BufferRef(const BufferRef& other);
  BufferRef(BufferRef&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), index_(other.index_) {}
  BufferRef& operator=(BufferRef other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(index_, other.index_);
    return *this;
  }
  ~BufferRef() { reset(); }
  void reset();
  explicit operator bool() const { return pool_ != nullptr; }

  std::span<std::byte> request() const;  // where the request is read to
  std::span<std::byte> data() const;     // kMaxRequestData bytes, on a page; for a READ's data

 private:
  friend class RequestBuffers;
  BufferRef(RequestBuffers* pool, std::uint32_t index) : pool_(pool), index_(index) {}
  RequestBuffers* pool_ = nullptr;
  std::uint32_t index_ = 0;
};

class RequestBuffers {
 public:
  static constexpr std::size_t kRequestHead = 80;  // fuse_in_header and fuse_write_in
  static constexpr std::size_t kPage = 4096;
  static constexpr std::size_t kBytes = kPage + kMaxRequestData;

  RequestBuffers(std::uint32_t count, std::shared_ptr<LocalMemory> local_memory);
  ~RequestBuffers();
  RequestBuffers(const RequestBuffers&) = delete;
  RequestBuffers& operator=(const RequestBuffers&) = delete;

  BufferRef take();  // empty when all are in use
  std::size_t in_use() const { return references_.size() - free_.size(); }

 private:
  friend class BufferRef;
  std::span<std::byte> whole() const { return {memory_, references_.size() * kBytes}; }

  const std::shared_ptr<LocalMemory> local_memory_;
  std::byte* memory_ = nullptr;            // mapped; pages are touched when first used
  std::vector<std::uint32_t> references_;  // by buffer
  std::vector<std::uint32_t> free_;        // last used first: few buffers stay warm
};

inline BufferRef::BufferRef(const BufferRef& other) : pool_(other.pool_), index_(other.index_) {
  if (pool_ != nullptr) ++pool_->references_[index_];
}
inline void BufferRef::reset() {
  if (pool_ == nullptr) return;
  if (--pool_->references_[index_] == 0) pool_->free_.push_back(index_);
  pool_ = nullptr;
}
inline std::span<std::byte> BufferRef::request() const {
  return {pool_->memory_ + index_ * RequestBuffers::kBytes + RequestBuffers::kPage - RequestBuffers::kRequestHead,
          RequestBuffers::kRequestHead + kMaxRequestData};
}
inline std::span<std::byte> BufferRef::data() const {
  return {pool_->memory_ + index_ * RequestBuffers::kBytes + RequestBuffers::kPage, kMaxRequestData};
}

}  // namespace rmemfs
