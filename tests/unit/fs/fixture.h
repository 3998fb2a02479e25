// What the file system's tests stand on: the manager's fixture (real journal, store and manager, nodes in this process)
// with memory behind its regions, reached through connections that tests may make faulty.
#pragma once

#include <map>
#include <thread>
#include <utility>

#include "fs/file_system.h"
#include "tests/support/faulty_connection.h"
#include "tests/unit/manager/fixture.h"
#include "util/bytes.h"

namespace rmemfs {

// The memory of all regions, by region. Regions begin as zeros.
using Memory = std::map<std::uint64_t, std::vector<std::byte>>;

class MemoryConnection final : public Connection {
 public:
  MemoryConnection(Memory& memory, std::uint64_t& boot, bool& reboots)
      : memory_(memory), boot_(boot), reboots_(reboots) {}
  Posted post(Operation& op) override {
    auto& bytes = memory_[op.region->id.value()];
    if (bytes.size() < op.region->length_bytes) bytes.resize(op.region->length_bytes);
    BOOST_REQUIRE(op.offset + op.length_bytes <= bytes.size());
    std::byte* at = bytes.data() + op.offset;
    if (op.kind == OperationKind::kRead) std::copy_n(at, op.length_bytes, op.buffer);
    if (op.kind == OperationKind::kWrite) std::copy_n(op.buffer, op.length_bytes, at);
    op.ok = true;
    if (op.kind == OperationKind::kPersist && std::exchange(reboots_, false)) ++boot_;
    op.boot = boot_;
    return Posted::kCompleted;
  }
  void submit() override {}
  void poll(std::vector<Operation*>&) override {}
  int event_fd() const override { return -1; }
  std::size_t outstanding() const override { return 0; }
  ConnectionStatistics statistics() const override { return {}; }

 private:
  Memory& memory_;
  std::uint64_t& boot_;
  bool& reboots_;
};

// A file system on one lane, driven by the mount's loop.
class Files {
 public:
  explicit Files(Fixture& fixture, std::uint32_t deadline_ms = 2000, MountOptions options = {})
      : mount(fixture.dir.path(), fixture.nodes, std::move(options)),
        connections(0, mount.loop,
                    [this](NodeId, std::uint32_t) -> Result<std::unique_ptr<Connection>> {
                      return std::make_unique<FaultyConnection>(
                          std::make_unique<MemoryConnection>(memory, boot, reboots), faults);
                    }),
        fs(*mount.manager, FileSystemOptions{.deadline_ms = deadline_ms},
           [this](std::uint32_t) { return &connections; }) {
    mount.loop.on_idle = [this] {
      connections.submit();
      if (!connections.poll()) std::this_thread::sleep_for(std::chrono::microseconds(50));
    };
  }

  ~Files() { settle(); }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  RequestContext context() { return {&connections, 0, 0, 0}; }
  template <typename T>
  T run(Task<T> task) {
    return mount.run(std::move(task));
  }
  InodeNumber create(std::string_view name, std::uint32_t mode = S_IFREG | 0644) {
    NewNode node;
    node.mode = mode;
    auto made = run(fs.make_node(context(), kRootInode, name, node));
    BOOST_REQUIRE_MESSAGE(made.ok(), (made.ok() ? std::string() : made.error().message()));
    return made->ino;
  }
  Result<void> write(InodeNumber ino, std::uint64_t offset, const std::string& text) {
    auto written = run(fs.write(context(), ino, offset, as_bytes(std::string_view(text))));
    if (!written.ok()) return std::move(written).error();
    BOOST_REQUIRE(*written == text.size());
    return success();
  }
  Result<std::string> read(InodeNumber ino, std::uint64_t offset, std::size_t length) {
    std::string text(length, '?');
    auto got = run(fs.read(context(), ino, offset, {reinterpret_cast<std::byte*>(text.data()), text.size()}));
    if (!got.ok()) return got.error();
    text.resize(*got);
    return text;
  }
  std::uint64_t size(InodeNumber ino) {
    auto attributes = fs.getattr(ino);
    BOOST_REQUIRE(attributes.ok());
    return attributes->size;
  }
  // Purges run after the request that caused them.
  void settle() {
    run([](FileSystem& files) -> Task<void> {
      while (files.purging() > 0) co_await Yield{};
      co_await Yield{};  // the queue's own coroutine sees that it is empty, and ends
    }(fs));
  }

  FaultyConnection::Faults faults;  // of connections made from now on
  Memory memory;
  std::uint64_t boot = 1;  // of the nodes' host
  bool reboots = false;    // before the next PERSIST
  Mount mount;
  ConnectionSet connections;
  FileSystem fs;
};

}  // namespace rmemfs
