// boost's small_vector, for short lists that should not be allocated. Included through here only: g++ 12 sees an
// overread in the move of its inline elements that cannot happen (their number never exceeds the inline capacity).
#pragma once

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstringop-overread"
#include <boost/container/small_vector.hpp>
#pragma GCC diagnostic pop
