// What has to hold of any plan, found out from the demands alone: every unit computed once with all it needs in hand,
// nothing read twice but the halo, blocks of heads where they are wanted, memory within budget.
#pragma once

#include "plan/plan.hpp"

namespace geom::test {

/// Every owed unit is in the visits of one rank once (of a global: of each of its strips, on one rank).
void expect_units_are_owned_once(const Plan& plan);

/// A visit's weights are in its load, those of the row before in the load before; layers of a rank rise. What a rising
/// sweep asks for is in one load of each row.
void expect_weights_are_at_hand(const Plan& plan);

/// Every weight wanted is read whole and counted by one rank; at most one other reads it as well, as a halo.
/// plan.bytes_read() is the sum of that, of rows of heads in every pass, and of the rising sweep.
void expect_nothing_is_read_twice(const Plan& plan);

/// The blocks that a visit looks at are held, in a row; a pass of a rank names a group once.
void expect_heads_are_at_hand(const Plan& plan);

/// Sends and receives of every pair of ranks agree in order, and bring each block of a pass to who holds it once.
void expect_exchange_is_complete(const Plan& plan);

void expect_within_budget(const Plan& plan);

/// All of these.
void expect_sound(const Plan& plan);

}  // namespace geom::test
