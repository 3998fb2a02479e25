#define BOOST_TEST_DYN_LINK
#define BOOST_TEST_MODULE recovery
#include <boost/test/unit_test.hpp>

#include "util/log.h"

struct Quiet {
  Quiet() { rmemfs::log::set_level(rmemfs::log::Level::kOff); }
};
BOOST_TEST_GLOBAL_FIXTURE(Quiet);
