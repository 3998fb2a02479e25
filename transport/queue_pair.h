// QueuePair: the verbs objects of one connection's end, made and destroyed together: a completion queue and a reliable
// connected queue pair on an rdma_cm id. The id, the completion channel and the domain are others' and outlive it.
//
// When the destructor has returned, the device touches no memory for it any more: nothing that a work request named on
// this side, and nothing that a peer's operation through it reached.
// Not thread-safe.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>

#include "util/result.h"

struct rdma_cm_id;

namespace rmemfs {

class QueuePair {
 public:
  struct Shape {
    std::uint32_t sends = 0, receives = 0;  // work requests that may be unfinished
    std::uint32_t inline_bytes = 0;         // wished for; what the device gives is in inline_bytes()
  };
  // `mark` comes with the channel's events. kNoMemory, kNotSupported and what the device's errno says.
  static Result<std::unique_ptr<QueuePair>> make(rdma_cm_id* id, ibv_pd* domain, ibv_comp_channel* channel, void* mark,
                                                 const Shape& shape);
  ~QueuePair();
  QueuePair(const QueuePair&) = delete;
  QueuePair& operator=(const QueuePair&) = delete;

  ibv_qp* pair() const { return pair_; }
  ibv_cq* completions() const { return completions_; }
  std::uint32_t sends() const { return sends_; }
  std::uint32_t inline_bytes() const { return inline_bytes_; }
  bool arm() { return ::ibv_req_notify_cq(completions_, 0) == 0; }
  // A receive into one buffer; `mark` comes back with its completion.
  bool receive(std::uint64_t mark, std::byte* buffer, std::size_t size, std::uint32_t lkey);

 private:
  QueuePair(rdma_cm_id* id, std::uint32_t sends) : id_(id), sends_(sends) {}
  rdma_cm_id* const id_;
  const std::uint32_t sends_;
  ibv_cq* completions_ = nullptr;
  ibv_qp* pair_ = nullptr;
  std::uint32_t inline_bytes_ = 0;
};

}  // namespace rmemfs
