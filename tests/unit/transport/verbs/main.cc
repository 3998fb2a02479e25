#define BOOST_TEST_DYN_LINK
#define BOOST_TEST_NO_MAIN
#include <boost/test/unit_test.hpp>

#include <cstdio>

#include "tests/unit/transport/test_node.h"
#include "util/log.h"

int main(int argc, char** argv) {
  if (rmemfs::test::rdma_address().empty()) {
    std::puts("skipped: no RDMA device");
    return 77;
  }
  return boost::unit_test::unit_test_main([] { return true; }, argc, argv);
}
