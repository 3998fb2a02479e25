#include "transport/verbs_stream.h"

#include <rdma/rdma_cma.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "util/clock.h"
#include "util/log.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kReplies = 2 * VerbsStream::kCredits;
constexpr std::size_t kReplySpace = 1024;
constexpr std::size_t kRepliesAt = VerbsStream::kCredits * verbs::kRequestBytes;
constexpr std::size_t kMemory = kRepliesAt + kReplies * kReplySpace;
constexpr std::uint64_t kReceiveMark = std::uint64_t{1} << 63;
static_assert(verbs::kMaxReplyBytes <= kReplySpace);
// A device returns the receives of a queue pair in the error state within microseconds.
constexpr Duration kQuietLimit = std::chrono::milliseconds(200);
constexpr auto kLookAgain = std::chrono::microseconds(50);

verbs::Reply refusal(Errc code) {
  verbs::Reply reply;
  reply.status = code;
  return reply;
}

}  // namespace

Result<void> VerbsStream::open(rdma_cm_id* id, std::shared_ptr<VerbsDomain> domain, ibv_comp_channel* channel,
                               std::uint8_t reads_at_once) {
  std::lock_guard lock(mutex_);
  if (ended()) return Error(Errc::kCancelled, "stream");
  memory_.resize(kMemory);
  ASSIGN_OR_RETURN(registration_, domain->register_messages(memory_));
  domain_ = std::move(domain);
  for (std::uint32_t i = 0; i < kReplies; ++i) free_replies_.push_back(i);
  ASSIGN_OR_RETURN(pair_, QueuePair::make(id, domain_->pd(), channel, reinterpret_cast<void*>(number_),
                                          {.sends = kReplies, .receives = kCredits}));
  id_ = id;
  for (std::uint32_t i = 0; i < kCredits; ++i) {
    if (!pair_->receive(kReceiveMark | i, memory_.data() + i * verbs::kRequestBytes, verbs::kRequestBytes,
                        registration_->lkey)) {
      return Error(Errc::kNoMemory, "receives");
    }
    ++receives_;
  }
  if (!pair_->arm()) return Error(Errc::kNotSupported, "completion queue");
  std::array<std::byte, verbs::kAnswerBytes> answer;
  verbs::encode_answer({.ok = true, .credits = kCredits, .instance = domain_->instance(), .boot = regions_.boot()},
                       answer);
  rdma_conn_param parameters{};
  parameters.private_data = answer.data();
  parameters.private_data_len = answer.size();
  parameters.responder_resources = reads_at_once;
  parameters.rnr_retry_count = 6;
  accepted_ = true;
  if (::rdma_accept(id, &parameters) != 0) return Error(errc_from_errno(errno), "accept");
  return success();
}

void VerbsStream::end() {
  std::lock_guard lock(mutex_);
  end_locked();
}

void VerbsStream::end_locked() {
  if (ended_.exchange(true, std::memory_order_acq_rel) || pair_ == nullptr) return;
  ibv_qp_attr error{};
  error.qp_state = IBV_QPS_ERR;
  const bool changed = ::ibv_modify_qp(pair_->pair(), &error, IBV_QP_STATE) == 0;
  ::rdma_disconnect(id_);  // tells the agent at once; fails when it was never connected
  if (!accepted_ || (changed && quiet())) return;
  log::warn("data plane: a device does not end a queue pair; waiting until it is destroyed");
  pair_.reset();
}

// X1: sees the last of the receives come back.
bool VerbsStream::quiet() {
  const TimePoint limit = MonoClock::now() + kQuietLimit;
  std::array<ibv_wc, 16> completions;
  while (receives_ > 0) {
    const int got = take_completions(completions);
    if (got > 0) continue;
    if (got < 0 || MonoClock::now() >= limit) return false;
    std::this_thread::sleep_for(kLookAgain);
  }
  return true;
}

int VerbsStream::take_completions(std::span<ibv_wc> completions) {
  const int got = ::ibv_poll_cq(pair_->completions(), static_cast<int>(completions.size()), completions.data());
  for (int i = 0; i < got; ++i) {
    if ((completions[static_cast<std::size_t>(i)].wr_id & kReceiveMark) != 0) --receives_;
  }
  return got;
}

void VerbsStream::destroy() {
  // Destroyed from the last to the first, without the lock: end() does not wait for this.
  std::shared_ptr<VerbsDomain> domain;
  std::vector<std::byte> memory;
  MemoryRegistration registration;
  std::unique_ptr<QueuePair> pair;
  std::lock_guard lock(mutex_);
  end_locked();
  domain = std::move(domain_);
  memory = std::move(memory_);
  registration = std::move(registration_);
  pair = std::move(pair_);
  id_ = nullptr;
}

// What has come since the queue was last empty, with the queue armed for what comes later. False: nothing.
bool VerbsStream::collect(std::vector<Received>& requests) {
  std::lock_guard lock(mutex_);
  if (ended()) return false;
  pair_->arm();
  std::array<ibv_wc, 16> completions;
  const int got = take_completions(completions);
  for (int i = 0; i < got; ++i) {
    const ibv_wc& completion = completions[static_cast<std::size_t>(i)];
    if (completion.status != IBV_WC_SUCCESS) {
      end_locked();
      return false;
    }
    if ((completion.wr_id & kReceiveMark) == 0) {
      free_replies_.push_back(static_cast<std::uint32_t>(completion.wr_id));
      continue;
    }
    const auto index = static_cast<std::uint32_t>(completion.wr_id & ~kReceiveMark);
    std::byte* const bytes = memory_.data() + index * verbs::kRequestBytes;
    Received& request = requests.emplace_back();
    request.index = index;
    request.size = completion.byte_len;
    std::memcpy(request.bytes.data(), bytes, verbs::kRequestBytes);
    if (!pair_->receive(completion.wr_id, bytes, verbs::kRequestBytes, registration_->lkey)) {
      end_locked();
      return false;
    }
    ++receives_;
  }
  return got > 0;
}

void VerbsStream::serve() {
  std::vector<Received> received;
  while (collect(received)) {
    for (const Received& one : received) {
      const std::span<const std::byte> bytes(one.bytes);
      const auto request = verbs::decode_request(bytes.first(std::min<std::size_t>(one.size, bytes.size())));
      if (!request.ok()) {
        log::debug("data plane: a queue pair is closed: {}", request.error().where);
        return end();
      }
      verbs::Reply reply = execute(*request);
      reply.id = request->id;
      if (!answer(reply)) return end();
    }
    received.clear();
  }
}

verbs::Reply VerbsStream::execute(const verbs::Request& request) {
  return request.kind == verbs::Kind::kAttach ? attach(request) : persist(request);
}

verbs::Reply VerbsStream::attach(const verbs::Request& request) {
  attached_.erase(request.region.value());
  auto region = regions_.open_region(hello_.session.file_system, request.region, request.generation, request.key);
  if (!region.ok()) return refusal(region.error().code);
  auto place = domain_->attach(request.region, *region);
  if (!place.ok()) return refusal(place.error().code);
  attached_[request.region.value()] = std::move(*region);
  return std::move(*place);
}

verbs::Reply VerbsStream::persist(const verbs::Request& request) {
  const auto found = attached_.find(request.region.value());
  if (found == attached_.end()) return refusal(Errc::kRefused);
  TargetRegion& region = *found->second;
  if (region.revoked()) return refusal(Errc::kRegionLost);
  if (request.offset > region.memory.size() || request.length > region.memory.size() - request.offset) {
    return refusal(Errc::kOutOfBounds);
  }
  if (const Result<void> done = region.persist(request.offset, request.length); !done.ok()) {
    return refusal(done.error().code);
  }
  verbs::Reply reply;
  reply.ok = true;
  return reply;
}

bool VerbsStream::answer(const verbs::Reply& reply) {
  std::lock_guard lock(mutex_);
  if (ended() || free_replies_.empty()) return false;  // X3
  const std::uint32_t index = free_replies_.back();
  free_replies_.pop_back();
  std::byte* const bytes = memory_.data() + kRepliesAt + index * kReplySpace;
  const std::size_t size =
      verbs::encode_reply(reply, std::span<std::byte, verbs::kMaxReplyBytes>(bytes, verbs::kMaxReplyBytes));
  ibv_sge piece{reinterpret_cast<std::uint64_t>(bytes), static_cast<std::uint32_t>(size), registration_->lkey};
  ibv_send_wr request{};
  request.wr_id = index;
  request.sg_list = &piece;
  request.num_sge = 1;
  request.opcode = IBV_WR_SEND;
  request.send_flags = IBV_SEND_SIGNALED;
  ibv_send_wr* bad = nullptr;
  return ::ibv_post_send(pair_->pair(), &request, &bad) == 0;
}

}  // namespace rmemfs
