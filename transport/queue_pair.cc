#include "transport/queue_pair.h"

#include <rdma/rdma_cma.h>

#include <cerrno>

#include "util/check.h"

namespace rmemfs {
namespace {

ibv_qp_init_attr attributes_of(const QueuePair::Shape& shape, ibv_cq* completions, std::uint32_t inline_bytes) {
  ibv_qp_init_attr attributes{};
  attributes.qp_type = IBV_QPT_RC;
  attributes.send_cq = completions;
  attributes.recv_cq = completions;
  attributes.cap.max_send_wr = shape.sends;
  attributes.cap.max_recv_wr = shape.receives;
  attributes.cap.max_send_sge = 1;
  attributes.cap.max_recv_sge = 1;
  attributes.cap.max_inline_data = inline_bytes;
  return attributes;
}

}  // namespace

Result<std::unique_ptr<QueuePair>> QueuePair::make(rdma_cm_id* id, ibv_pd* domain, ibv_comp_channel* channel,
                                                   void* mark, const Shape& shape) {
  std::unique_ptr<QueuePair> made(new QueuePair(id, shape.sends));
  const int depth = static_cast<int>(shape.sends + shape.receives);
  made->completions_ = ::ibv_create_cq(id->verbs, depth, mark, channel, 0);
  if (made->completions_ == nullptr) return Error(errc_from_errno(errno), "completion queue");
  // Not every device takes as much inline as others; none at all is right as well.
  for (std::uint32_t inline_bytes : {shape.inline_bytes, shape.inline_bytes / 4, 0u}) {
    ibv_qp_init_attr attributes = attributes_of(shape, made->completions_, inline_bytes);
    if (::rdma_create_qp(id, domain, &attributes) == 0) {
      made->pair_ = id->qp;
      made->inline_bytes_ = attributes.cap.max_inline_data;
      return made;
    }
    if (errno != EINVAL) break;
  }
  return Error(errc_from_errno(errno), "queue pair");
}

QueuePair::~QueuePair() {
  if (pair_ != nullptr) ::rdma_destroy_qp(id_);
  if (completions_ != nullptr) CHECK(::ibv_destroy_cq(completions_) == 0);
}

bool QueuePair::receive(std::uint64_t mark, std::byte* buffer, std::size_t size, std::uint32_t lkey) {
  ibv_sge piece{reinterpret_cast<std::uint64_t>(buffer), static_cast<std::uint32_t>(size), lkey};
  ibv_recv_wr request{};
  request.wr_id = mark;
  request.sg_list = &piece;
  request.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  return ::ibv_post_recv(pair_, &request, &bad) == 0;
}

}  // namespace rmemfs
