// The bodies of generate(): one element pair at a time (the reference), and wide ones where the processor has them.
//
// For stored index i of a tensor (counted from its first element):
//
//   block  = philox4x32(counter = {lo(i/2), hi(i/2), lo(key), hi(key)}, key = {lo(seed), hi(seed)})
//   words  = block[0], block[1] when i is even; block[2], block[3] when it is odd
//   s(key) = 2 * (sum of the four 16-bit halves of the two words) - 4 * 65535           even, |s| <= 262140 < 2^18
//   value  = (base_factor * s(base_key) + own_factor * s(own_key)) * 2^-exponent
//
// With factors up to 2^30 the sum is an exact integer below 2^49, hence an exact double: the one rounding is that to
// the tensor's type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "checkpoint/weight.hpp"
#include "core/dtype.hpp"

namespace geom {

/// What generate() does, in portable C++. The source is not constant.
void generate_portable(const SyntheticSource& source, DType dtype, std::int64_t begin, std::int64_t end,
                       std::byte* out) noexcept;

/// Elements that one step of the wide body makes.
inline constexpr std::int64_t wide_step = 16;

/// Writes `steps` * wide_step elements whose first has the even stored index 2 * first_block: the same bits as
/// generate_portable().
using WideGenerator = void (*)(const SyntheticSource& source, DType dtype, std::int64_t first_block, std::int64_t steps,
                               std::byte* out) noexcept;

/// The wide bodies that this processor has instructions for, the fastest first.
std::span<const WideGenerator> wide_generators() noexcept;

}  // namespace geom
