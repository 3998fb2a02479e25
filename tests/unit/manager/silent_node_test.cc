// Nodes that fall silent: where new data goes meanwhile, what is counted as free, and how writers see it.
#include <set>
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
      BOOST_REQUIRE(m->run(m->manager->commit_write(file, *plan, SetId::kKeep, 0)).ok());
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
  BOOST_CHECK(s.m->error(s.m->manager->allocate(file, kBlock, kBlock, {}, deadline_after_ms(10000), 0)) ==
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
  s.m->must(s.m->manager->allocate(file, kBlock, 4 * kBlock, {}, deadline_after_ms(10000), 0));
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

BOOST_AUTO_TEST_CASE(two_addresses_of_one_pool_are_not_mounted) {
  Fixture fixture({.nodes = 3});
  fixture.nodes["shm:/node2"] = fixture.nodes["shm:/node0"];
  for (const bool degraded : {false, true}) {
    MountOptions options;
    options.manager.degraded = degraded;
    Mount m;
    const auto opened = m.open(fixture.dir.path(), fixture.nodes, options);
    BOOST_REQUIRE(!opened.ok());
    BOOST_CHECK(opened.error().code == Errc::kInvalid);
    for (const char* address : {"shm:/node0", "shm:/node2"})
      BOOST_CHECK_MESSAGE(opened.error().detail.find(address) != std::string::npos, opened.error().message());
  }
}

BOOST_AUTO_TEST_CASE(a_node_that_comes_with_another_ones_pool_does_not_join) {
  Silence s(2, 400);
  s.m.reset();
  s.node(0).leak(1u << 20);
  const std::size_t regions = s.node(0).regions();
  const Uuid own = s.node(0).pool();
  s.node(0).set_silent(true);
  s.options.manager.degraded = true;
  s.m = s.fixture.mount(s.options);
  s.node(0).set_pool(s.node(1).pool());
  s.node(0).set_silent(false);
  for (int i = 0; i < 50; ++i) {
    BOOST_REQUIRE(s.m->manager->health(NodeId(0)) == NodeHealth::kUnreachable);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  BOOST_CHECK_EQUAL(s.node(0).regions(), regions);  // nobody compared its leases
  s.node(0).set_pool(own);
  BOOST_REQUIRE(s.becomes(0, NodeHealth::kAlive));
}

BOOST_AUTO_TEST_CASE(a_node_whose_address_comes_to_lead_to_another_ones_pool_is_not_used) {
  Silence s(2, 400);
  const Uuid own = s.node(0).pool();
  s.node(0).set_pool(s.node(1).pool());
  BOOST_REQUIRE(s.becomes(0, NodeHealth::kUnreachable));
  BOOST_CHECK(s.m->manager->health(NodeId(1)) == NodeHealth::kAlive);
  s.node(0).set_pool(own);
  BOOST_REQUIRE(s.becomes(0, NodeHealth::kAlive));
}

BOOST_AUTO_TEST_CASE(chunks_under_another_address_of_the_pool_are_not_taken_for_a_crash_s_leases) {
  Fixture fixture({.nodes = 2});
  fixture.nodes["shm:/node1"] = fixture.nodes["shm:/node0"];
  FakeNode& node = *fixture.nodes["shm:/node0"];
  node.hide_pool();
  std::set<std::uint64_t> nodes_used;
  {
    auto m = fixture.mount();
    const InodeRef file = m->file(m->root(), "f");
    m->write(file, 0, 5u << 20);
    const auto pieces = m->manager->map(*file, 0, 5u << 20);
    for (const Piece& piece : *pieces) nodes_used.insert(piece.chunk->node.value());
    m->manager->close();  // waits for what is leased ahead, which the next mount would do otherwise
  }
  BOOST_REQUIRE_EQUAL(nodes_used.size(), 2u);
  const std::size_t regions = node.regions();
  node.leak(4096);
  {
    auto m = fixture.mount();
    BOOST_CHECK_EQUAL(m->attributes(m->find(m->root(), "f")).size, 5u << 20);
    m->manager->close();  // waits for the comparison of leases
    BOOST_CHECK_EQUAL(node.regions(), regions);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs
