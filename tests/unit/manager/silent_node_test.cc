// Nodes that fall silent: where new data goes meanwhile, what is counted as free, and how writers see it.
#include <thread>

#include "fixture.h"

namespace rmemfs {
namespace {

constexpr std::uint64_t kBlock = kBlockBytes;

struct Silence {
  explicit Silence(unsigned nodes, std::uint32_t deadline_ms = 5000, std::uint32_t heartbeat_ms = 20)
      : fixture({.nodes = nodes}) {
    options.manager.deadline_ms = deadline_ms;
    options.manager.heartbeat_ms = heartbeat_ms;
    m = fixture.mount(options);
  }
  FakeNode& node(unsigned number) { return *fixture.nodes.at("shm:/node" + std::to_string(number)); }
  bool becomes(unsigned number, NodeHealth health) {
    const TimePoint deadline = deadline_after_ms(5000);
    while (m->manager->health(NodeId(number)) != health) {
      if (MonoClock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }
  void silence(unsigned number) {
    node(number).set_silent(true);
    BOOST_REQUIRE(becomes(number, NodeHealth::kUnreachable));
  }
  NodeId last_node(const InodeRef& file) {
    const std::uint64_t size = m->attributes(file).size;
    return m->manager->map(*file, size - 1, 1)->front().chunk->node;
  }
  // A file whose last extent is on the node, in a chunk with room behind it.
  InodeRef file_on(NodeId wanted) {
    for (int i = 0; i < 200; ++i) {
      const InodeRef file = m->file(m->root(), "on" + std::to_string(i));
      m->write(file, 0, 40 * kBlock);
      if (last_node(file) == wanted) return file;
    }
    BOOST_FAIL("no file came to be on the node");
    return {};
  }
  // Writes until there is no more room; the error it ends with.
  Errc fill(std::string_view name) {
    const InodeRef file = m->file(m->root(), name);
    for (std::uint64_t at = 0;; at += kBlock * 8) {
      const auto plan = m->run(m->manager->plan_write(file, at, kBlock * 8, deadline_after_ms(10000)));
      if (!plan.ok()) return plan.error().code;
      for (const Piece& piece : plan->pieces) filled[piece.chunk->node.value()] += piece.length;
      BOOST_REQUIRE(m->run(m->manager->commit_write(file, *plan, false, 0)).ok());
    }
  }

  Fixture fixture;
  MountOptions options;
  std::unique_ptr<Mount> m;
  std::map<std::uint64_t, std::uint64_t> filled;  // bytes by node
};

}  // namespace

BOOST_AUTO_TEST_SUITE(silent_nodes)

BOOST_AUTO_TEST_CASE(new_data_goes_to_the_nodes_that_answer) {
  Silence s(2, 400);
  const InodeRef file = s.file_on(NodeId(0));
  s.silence(0);
  BOOST_CHECK_LE(s.m->manager->space().free_bytes, s.fixture.setup.pool_bytes);
  s.m->write(file, s.m->attributes(file).size, 10 * kBlock);  // its last extent would like to go on where it is
  BOOST_CHECK(s.last_node(file) == NodeId(1));
  BOOST_CHECK(s.fill("a") == Errc::kUnreachable);
  BOOST_CHECK_EQUAL(s.filled[0], 0u);
  BOOST_CHECK_GT(s.filled[1], 0u);
  BOOST_CHECK_LT(s.m->manager->space().free_bytes, 8 * kBlock);

  s.node(0).set_silent(false);
  BOOST_REQUIRE(s.becomes(0, NodeHealth::kAlive));
  BOOST_CHECK(s.fill("b") == Errc::kNoSpace);
  BOOST_CHECK_GT(s.filled[0], 0u);
  BOOST_CHECK_LT(s.m->manager->space().free_bytes, 8 * kBlock);
}

BOOST_AUTO_TEST_CASE(without_any_node_that_answers_the_error_is_not_a_full_file_system) {
  Silence s(1, 300);
  const InodeRef file = s.m->file(s.m->root(), "f");
  s.m->write(file, 0, kBlock);
  s.silence(0);
  BOOST_CHECK_EQUAL(s.m->manager->space().free_bytes, 0u);
  const TimePoint start = MonoClock::now();
  BOOST_CHECK(s.m->try_write(file, kBlock, kBlock).error().code == Errc::kUnreachable);
  BOOST_CHECK(s.m->error(s.m->manager->allocate(file, kBlock, kBlock, false, deadline_after_ms(10000), 0)) ==
              Errc::kUnreachable);
  BOOST_CHECK(MonoClock::now() - start < std::chrono::seconds(2));
  BOOST_CHECK_EQUAL(s.m->attributes(file).size, kBlock);
  s.m->write(file, 0, kBlock);  // no new space: a matter of the data path
}

BOOST_AUTO_TEST_CASE(a_writer_waits_for_a_node_that_is_being_restarted) {
  Silence s(1);
  const InodeRef file = s.m->file(s.m->root(), "f");
  s.silence(0);
  std::jthread restart([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    s.node(0).set_silent(false);
  });
  s.m->write(file, 0, kBlock);
  s.silence(0);
  std::jthread again([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    s.node(0).set_silent(false);
  });
  s.m->must(s.m->manager->allocate(file, kBlock, 4 * kBlock, false, deadline_after_ms(10000), 0));
}

BOOST_AUTO_TEST_CASE(what_the_data_path_saw_is_looked_into_at_once) {
  Silence s(2, 5000, 60000);
  s.node(0).set_silent(true);
  s.m->manager->node_unreachable(NodeId(0));
  s.m->manager->node_unreachable(NodeId(0));
  s.m->manager->node_unreachable(NodeId(1));
  s.m->manager->node_unreachable(NodeId(77));
  BOOST_CHECK(s.becomes(0, NodeHealth::kUnreachable));
  BOOST_CHECK(s.m->manager->health(NodeId(1)) == NodeHealth::kAlive);
  s.node(0).set_silent(false);
  BOOST_CHECK(s.becomes(0, NodeHealth::kAlive));
}

BOOST_AUTO_TEST_CASE(a_node_that_comes_back_empty_gets_data_in_new_chunks_only) {
  Silence s(2);
  s.file_on(NodeId(0));
  s.silence(0);
  s.node(0).restart_empty();
  s.node(0).set_silent(false);
  BOOST_REQUIRE(s.becomes(0, NodeHealth::kRestartedEmpty));
  const InodeRef file = s.m->file(s.m->root(), "f");
  for (std::uint64_t at = 0; at < 10u << 20; at += 64 * kBlock) {
    s.m->write(file, at, 64 * kBlock);
    BOOST_REQUIRE(s.m->manager->map(*file, at, kBlock)->front().chunk->state.load() == ChunkState::kActive);
  }
}

BOOST_AUTO_TEST_CASE(a_node_that_is_silent_since_the_mount_gets_no_data) {
  Silence s(2, 400);
  s.file_on(NodeId(0));
  s.m.reset();
  s.node(0).set_silent(true);
  s.options.manager.degraded = true;
  s.m = s.fixture.mount(s.options);
  BOOST_CHECK(s.fill("a") == Errc::kUnreachable);
  BOOST_CHECK_EQUAL(s.filled[0], 0u);
  s.node(0).set_silent(false);
  BOOST_REQUIRE(s.becomes(0, NodeHealth::kAlive));
  BOOST_CHECK(s.fill("b") == Errc::kNoSpace);
  BOOST_CHECK_GT(s.filled[0], 0u);
}

BOOST_AUTO_TEST_CASE(a_node_that_was_silent_at_the_mount_is_fenced_before_it_counts_as_alive) {
  Silence s(2, 400);
  s.file_on(NodeId(0));
  s.m.reset();
  s.node(0).leak(1u << 20);
  const std::size_t with_the_leak = s.node(0).regions();
  const std::uint64_t before = s.node(0).epoch();
  s.node(0).set_silent(true);
  s.options.manager.degraded = true;
  s.m = s.fixture.mount(s.options);
  BOOST_CHECK_EQUAL(s.node(0).epoch(), before);
  s.node(0).set_silent(false);
  BOOST_REQUIRE(s.becomes(0, NodeHealth::kAlive));
  BOOST_CHECK_EQUAL(s.node(0).epoch(), s.node(1).epoch());
  BOOST_CHECK_GT(s.node(0).epoch(), before);
  // What a crash had left leased there is given back, as it is at a mount.
  const TimePoint limit = deadline_after_ms(5000);
  while (s.node(0).regions() >= with_the_leak && MonoClock::now() < limit) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  BOOST_CHECK_LT(s.node(0).regions(), with_the_leak);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
