#include "util/error.h"

#include <cerrno>
#include <cstring>

namespace rmemfs {
namespace {

struct Row {
  std::string_view name;
  int number;
  std::string_view sentence;
};

constexpr Row kRows[] = {
#define RMEMFS_X(name, number, sentence) {#name, number, sentence},
    RMEMFS_ERROR_CODES(RMEMFS_X)
#undef RMEMFS_X
};

const Row& row(Errc code) { return kRows[static_cast<std::size_t>(code)]; }

}  // namespace

std::string_view name(Errc code) { return row(code).name; }
std::string_view sentence(Errc code) { return row(code).sentence; }
int errno_of(Errc code) { return row(code).number; }

Errc errc_from_errno(int number) {
  switch (number) {
    case ENOENT:
      return Errc::kNotFound;
    case EEXIST:
      return Errc::kExists;
    case ENOTDIR:
      return Errc::kNotDirectory;
    case EISDIR:
      return Errc::kIsDirectory;
    case ENOSPC:
      return Errc::kNoSpace;
    case EACCES:
      return Errc::kAccess;
    case EPERM:
      return Errc::kNotPermitted;
    case EROFS:
      return Errc::kReadOnly;
    case ENOMEM:
      return Errc::kNoMemory;
    case EBUSY:
      return Errc::kBusy;
    case EINVAL:
      return Errc::kInvalid;
    case EMFILE:
    case ENFILE:
      return Errc::kTooMany;
    case ENAMETOOLONG:
      return Errc::kNameTooLong;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return Errc::kUnreachable;
    case ETIMEDOUT:
      return Errc::kDeadline;
    default:
      return Errc::kLocalIo;
  }
}

std::string Error::message() const {
  std::string text = where;
  if (!detail.empty()) text += (text.empty() ? "" : ": ") + detail;
  // EIO is the errno of many codes, whose sentences say more.
  const int number = errno_of(code);
  if (const char* said = ::strerrordesc_np(number); number != EIO && said != nullptr && detail.ends_with(said)) {
    return text;
  }
  text += (text.empty() ? "" : ": ");
  text += sentence(code);
  return text;
}

}  // namespace rmemfs
