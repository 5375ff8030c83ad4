// Measures that nobody wants, one of each kind a schedule knows: what they need is what real ones will need, what they
// compute is easy to say in Python (tests/e2e/test_schedule.py). Processors only: they look at the bytes themselves.
//
// The number of a matrix is the sum of its elements' bits, read as unsigned integers: exact, whatever the order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.hpp"
#include "measures/measure.hpp"

namespace geom::fakes {

double bits_of(const MatrixRef& matrix);
/// A block as kept for products; padding is zero.
double bits_of(const std::byte* block, const HeadBlockFormat& format);

Measure step_measure();   ///< fake_step: a layer beside the one before it, attention and MLP apart
Measure walk_measure();   ///< fake_walk: layers in rising order, in chunks, each beginning with what the last one left
Measure pairs_measure();  ///< fake_pairs: every head against every head
Measure globals_measure();  ///< fake_globals: embed_tokens and lm_head
Measure experts_measure();  ///< fake_experts: the experts of a mixture

}  // namespace geom::fakes
