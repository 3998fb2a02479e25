// VerbsConnection's way out: from operations to work requests, gathered and posted with one doorbell.
#include <algorithm>
#include <cstring>

#include "transport/operation.h"
#include "transport/verbs_connection.h"
#include "transport/verbs_layout.h"
#include "util/check.h"

namespace rmemfs {
namespace {

constexpr std::uint32_t kSignalEvery = 32;  // V1

}  // namespace

void VerbsConnection::pump(TimePoint now) {
  while (!ready_.empty() && posted_.size() < options_.max_outstanding && link_.ready()) {
    if (!advance_front(now)) break;
  }
  while (!to_ask_.empty() && !free_messages_.empty() && room()) {
    Region* const region = to_ask_.front();
    to_ask_.pop_front();
    ask(*region);
  }
  if (gathered_ > 0 && link_.ready()) ring_doorbell(now);
}

VerbsConnection::Region& VerbsConnection::region_of(Entry& entry) {
  if (entry.region != nullptr) return *entry.region;
  const RegionName name = RegionName::of(*entry.op->region);
  if (last_region_ == nullptr || last_region_->name != name) {
    last_region_ = &regions_[name];
    last_region_->name = name;
  }
  Region& region = *last_region_;
  if (region.place == nullptr) region.place = places_->find(link_.answer().instance, name);
  entry.region = &region;
  return region;
}

bool VerbsConnection::advance_front(TimePoint now) {
  const auto entry = ready_.begin();
  Operation& op = *entry->op;
  if (op.deadline <= now && !entry->begun()) {
    fail(op, Errc::kDeadline);
    complete(ready_, entry);
    return true;
  }
  Region& region = region_of(*entry);
  const bool asks_node = op.kind == OperationKind::kPersist && !persists_by_read(op);
  if (region.place == nullptr || (asks_node && !region.attached)) {
    if (!region.asked) to_ask_.push_back(&region);
    region.asked = true;
    waiting_.splice(waiting_.end(), ready_, entry);
    return true;
  }
  if (!entry->begun()) {
    const std::uint64_t length = op.kind == OperationKind::kCompareSwap ? 8 : op.length_bytes;
    const bool writes = op.kind == OperationKind::kWrite || op.kind == OperationKind::kCompareSwap;
    const bool outside = op.offset > region.place->length || length > region.place->length - op.offset;
    if (outside || (writes && !region.place->writable)) {
      fail(op, outside ? Errc::kOutOfBounds : Errc::kNotPermitted);
      complete(ready_, entry);
      return true;
    }
  }
  if (!cut(*entry)) return false;
  entry->whole = true;
  posted_.splice(posted_.end(), ready_, entry);
  return true;
}

bool VerbsConnection::cut(Entry& entry) {
  switch (entry.op->kind) {
    case OperationKind::kRead:
    case OperationKind::kWrite:
      return cut_transfer(entry);
    case OperationKind::kCompareSwap:
      return cut_word(entry);
    case OperationKind::kPersist:
      break;
  }
  entry.covers = entry.region->writes;
  if (persists_by_read(*entry.op)) return cut_word(entry);
  // Strays are anywhere in the region, so it is taken as a whole then.
  const bool whole = entry.op->length_bytes == 0 || strays_.contains(entry.region->name);
  verbs::Request request;
  request.kind = verbs::Kind::kPersist;
  request.region = entry.op->region->id;
  request.offset = whole ? 0 : entry.op->offset;
  request.length = whole ? entry.region->place->length : entry.op->length_bytes;
  if (!send_request(request, nullptr, &entry)) return false;
  ++entry.pending;  // until it is answered
  return true;
}

bool VerbsConnection::persists_by_read(const Operation& op) const {
  return verbs::counts_writes(op) && !strays_.contains(RegionName::of(*op.region));
}

void VerbsConnection::persisted(Entry& entry) {
  if (!verbs::counts_writes(*entry.op)) return;
  entry.region->persisted = std::max(entry.region->persisted, entry.covers);
  strays_.erase(entry.region->name);
}

bool VerbsConnection::cut_transfer(Entry& entry) {
  Operation& op = *entry.op;
  const bool write = op.kind == OperationKind::kWrite;
  while (entry.cut < op.length_bytes) {
    if (!room()) return false;
    verbs::Part part =
        verbs::first_part(*entry.region->place, op.offset + entry.cut, op.length_bytes - entry.cut, most_);
    std::byte* const data = op.buffer + entry.cut;
    Work work;
    work.entry = &entry;
    const std::byte* local = data;
    std::uint32_t key = 0;
    const bool by_value = write && part.length <= link_.pair().inline_bytes();
    if (!by_value) {
      if (const auto found = local_key(data, part.length)) {
        key = *found;
      } else {
        if (free_bounces_.empty()) return false;
        work.lands = Lands::kBounce;
        work.index = free_bounces_.back();
        free_bounces_.pop_back();
        part.length = std::min<std::uint64_t>(part.length, verbs::kBounceBytes);
        std::byte* const bounce = bounce_.bytes.get() + work.index * verbs::kBounceBytes;
        if (write)
          std::memcpy(bounce, data, part.length);
        else
          work.copy_to = data;
        local = bounce;
        key = bounce_.registration->lkey;
      }
    }
    work.length = static_cast<std::uint32_t>(part.length);
    ibv_send_wr& request = gather(work, local, part.length, key);
    request.opcode = write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
    if (by_value) request.send_flags = IBV_SEND_INLINE;
    request.wr.rdma.remote_addr = part.address;
    request.wr.rdma.rkey = part.rkey;
    if (write && verbs::counts_writes(op)) ++entry.region->writes;
    entry.cut += part.length;
    ++entry.pending;
  }
  return true;
}

bool VerbsConnection::cut_word(Entry& entry) {
  if (!room() || free_results_.empty()) return false;
  Operation& op = *entry.op;
  const bool swap = op.kind == OperationKind::kCompareSwap;
  const std::uint64_t length = std::min<std::uint64_t>(8, entry.region->place->length);
  const verbs::Part part = verbs::first_part(*entry.region->place, swap ? op.offset : 0, length, 8);
  Work work;
  work.entry = &entry;
  work.lands = Lands::kResult;
  work.index = free_results_.back();
  work.length = static_cast<std::uint32_t>(part.length);
  free_results_.pop_back();
  ibv_send_wr& request = gather(work, messages_.bytes.get() + verbs::kResultsAt + work.index * 8, part.length,
                                messages_.registration->lkey);
  if (swap) {
    if (verbs::counts_writes(op)) ++entry.region->writes;
    request.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
    request.wr.atomic.remote_addr = part.address;
    request.wr.atomic.rkey = part.rkey;
    request.wr.atomic.compare_add = op.expected;
    request.wr.atomic.swap = op.desired;
  } else {
    request.opcode = IBV_WR_RDMA_READ;
    request.wr.rdma.remote_addr = part.address;
    request.wr.rdma.rkey = part.rkey;
  }
  ++entry.pending;
  return true;
}

void VerbsConnection::ask(Region& region) {
  verbs::Request request;
  request.kind = verbs::Kind::kAttach;
  request.region = region.name.id;
  request.generation = region.name.generation;
  request.key = region.name.key;
  CHECK(send_request(request, &region, nullptr));
}

bool VerbsConnection::send_request(const verbs::Request& content, Region* region, Entry* entry) {
  if (free_messages_.empty() || !room()) return false;
  const std::uint32_t index = free_messages_.back();
  free_messages_.pop_back();
  Message& message = sent_[index];
  message.region = region;
  message.entry = entry;
  ++message.tag;
  verbs::Request request = content;
  request.id = (std::uint64_t{message.tag} << 32) | index;
  std::byte* const bytes = messages_.bytes.get() + verbs::kRequestsAt + index * verbs::kRequestBytes;
  verbs::encode_request(request, std::span<std::byte, verbs::kRequestBytes>(bytes, verbs::kRequestBytes));
  gather({}, bytes, verbs::kRequestBytes, messages_.registration->lkey).opcode = IBV_WR_SEND;
  return true;
}

ibv_send_wr& VerbsConnection::gather(const Work& work, const std::byte* local, std::uint64_t length,
                                     std::uint32_t lkey) {
  ring_[(next_ + gathered_) % ring_.size()] = work;
  ibv_sge& piece = pieces_[gathered_];
  piece = {reinterpret_cast<std::uint64_t>(local), static_cast<std::uint32_t>(length), lkey};
  ibv_send_wr& request = requests_[gathered_];
  request = {};
  request.wr_id = next_ + gathered_;
  request.sg_list = &piece;
  request.num_sge = 1;
  ++gathered_;
  return request;
}

std::optional<std::uint32_t> VerbsConnection::local_key(const std::byte* data, std::size_t size) {
  if (!local_.holds(data, size) || local_.stamp != device_->stamp()) {
    const auto found = device_->find(data, size);
    if (!found) return std::nullopt;
    local_ = *found;
  }
  return local_.lkey;
}

void VerbsConnection::ring_doorbell(TimePoint now) {
  const std::size_t count = std::exchange(gathered_, 0);
  for (std::size_t i = 0; i < count; ++i) {
    const bool last = i + 1 == count;
    requests_[i].next = last ? nullptr : &requests_[i + 1];
    if (last || requests_[i].wr_id % kSignalEvery == kSignalEvery - 1) {
      requests_[i].send_flags |= IBV_SEND_SIGNALED;
      ++statistics_.signalled;
    }
  }
  if (next_ == done_) flight_began_ = now;
  quiet_since_ = now;
  next_ += count;
  statistics_.work_requests += count;
  ++statistics_.doorbells;
  ibv_send_wr* bad = nullptr;
  if (const int error = ::ibv_post_send(link_.pair().pair(), requests_.data(), &bad); error != 0) {
    break_link(now, std::string("posting to the queue pair: ") + std::strerror(error));
  }
}

}  // namespace rmemfs
