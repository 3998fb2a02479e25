// Result<T>: a T or an Error. It is tl::expected with [[nodiscard]] on the class, so a dropped error warns.
//
// In functions:   ASSIGN_OR_RETURN(auto fd, open_it());      RETURN_IF_ERROR(check_it());
// In coroutines:  CO_ASSIGN_OR_RETURN(auto n, co_await f()); CO_RETURN_IF_ERROR(co_await g());
#pragma once

#include <tl/expected.hpp>
#include <utility>

#include "util/error.h"

namespace rmemfs {

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
  Result(Error error) : tl::expected<T, Error>(tl::unexpect, std::move(error)) {}
  Result(Errc code) : tl::expected<T, Error>(tl::unexpect, Error(code)) {}
  Result(const tl::unexpected<Error>& error) : tl::expected<T, Error>(error) {}
  bool ok() const { return this->has_value(); }
};

inline Result<void> success() { return {}; }

}  // namespace rmemfs

#define RMEMFS_CONCAT_(a, b) a##b
#define RMEMFS_CONCAT(a, b) RMEMFS_CONCAT_(a, b)

#define RMEMFS_IF_ERROR_(result, expression, leave)    \
  do {                                                 \
    auto result = (expression);                        \
    if (!result.ok()) leave std::move(result).error(); \
  } while (0)
#define RMEMFS_ASSIGN_(result, target, expression, leave) \
  auto result = (expression);                             \
  if (!result.ok()) leave std::move(result).error();      \
  target = std::move(*result)

#define RETURN_IF_ERROR(expression) RMEMFS_IF_ERROR_(RMEMFS_CONCAT(result_, __LINE__), expression, return )
#define CO_RETURN_IF_ERROR(expression) RMEMFS_IF_ERROR_(RMEMFS_CONCAT(result_, __LINE__), expression, co_return )
#define ASSIGN_OR_RETURN(target, expression) \
  RMEMFS_ASSIGN_(RMEMFS_CONCAT(result_, __LINE__), target, expression, return )
#define CO_ASSIGN_OR_RETURN(target, expression) \
  RMEMFS_ASSIGN_(RMEMFS_CONCAT(result_, __LINE__), target, expression, co_return )
