#include <sys/socket.h>

#include <boost/test/unit_test.hpp>
#include <fstream>

#include "tests/unit/control/test_node.h"

namespace rmemfs::test {

BOOST_AUTO_TEST_SUITE(unix_socket)

BOOST_AUTO_TEST_CASE(a_bound_socket_has_its_mode_and_goes_with_its_owner) {
  TemporaryDirectory directory;
  const std::string path = directory / "s";
  struct stat status;
  {
    const auto socket = ListeningUnixSocket::bind(path, 0600);
    BOOST_REQUIRE(socket.ok());
    BOOST_REQUIRE(::stat(path.c_str(), &status) == 0);
    BOOST_TEST((status.st_mode & 0777) == 0600u);
  }
  BOOST_TEST(::stat(path.c_str(), &status) != 0);
  const auto open = ListeningUnixSocket::bind(path, 0666);
  BOOST_REQUIRE(open.ok());
  BOOST_REQUIRE(::stat(path.c_str(), &status) == 0);
  BOOST_TEST((status.st_mode & 0777) == 0666u);
}

BOOST_AUTO_TEST_CASE(a_live_socket_is_left_alone_and_a_stale_one_replaced) {
  TemporaryDirectory directory;
  const std::string path = directory / "s";
  {
    const auto first = ListeningUnixSocket::bind(path, 0600);
    BOOST_REQUIRE(first.ok());
    const auto second = ListeningUnixSocket::bind(path, 0600);
    BOOST_TEST((!second.ok() && second.error().code == Errc::kLocked));
  }
  const auto where = SocketPath::open(path);
  BOOST_REQUIRE(where.ok());
  {
    // As a killed process leaves it: bound, its listener gone.
    UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    struct {
      sa_family_t family = AF_UNIX;
      char path[108] = {};
    } name;
    path.copy(name.path, sizeof name.path - 1);
    BOOST_REQUIRE(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0);
  }
  BOOST_TEST((connect_unix(*where).error().code == Errc::kUnreachable));
  BOOST_TEST(ListeningUnixSocket::bind(path, 0600).ok());
}

BOOST_AUTO_TEST_CASE(something_that_is_no_socket_is_left_alone) {
  TemporaryDirectory directory;
  const std::string path = directory / "precious";
  std::ofstream(path) << "data";
  const auto socket = ListeningUnixSocket::bind(path, 0600);
  BOOST_TEST((!socket.ok() && socket.error().code == Errc::kExists));
  std::string content;
  BOOST_TEST((std::ifstream(path) >> content && content == "data"));
}

BOOST_AUTO_TEST_CASE(impossible_paths_have_their_own_errors) {
  TemporaryDirectory directory;
  BOOST_TEST((SocketPath::open("").error().code == Errc::kInvalid));
  BOOST_TEST((SocketPath::open("/a/").error().code == Errc::kInvalid));
  BOOST_TEST((SocketPath::open(directory / "none/s").error().code == Errc::kNotFound));
  BOOST_TEST((SocketPath::open(directory / std::string(200, 'x')).error().code == Errc::kNameTooLong));
  const auto nobody = SocketPath::open(directory / "s");
  BOOST_REQUIRE(nobody.ok());
  BOOST_TEST((connect_unix(*nobody).error().code == Errc::kNotFound));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace rmemfs::test
