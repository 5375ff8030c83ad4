// The plan of a run: who loads what, what is computed from it, how often weights are read, and what that costs.
// Pure integers: no MPI, no GPU, no file. Every rank computes the whole plan and finds itself in it; a run does what it
// says, load by load, and decides nothing.
//
// 3 layers of 4 heads in 2 groups on 2 ranks in 2 passes; `heads` looks at layers, `gram` at heads, and a third measure
// (say variation) at a layer and the one before it:
//
//   pass 0   round   rank 0                        rank 1
//            0       layer 0: heads                layer 1, a halo: read by both, nothing computed, not exchanged
//            1       layer 1: heads, variation     layer 2: heads, variation (layer 1 is still in memory)
//            after each: the blocks W_K, W_Q of this pass's heads go from the layer's owner to the heads' owners
//            rank 0 holds group 0: K0 Q0 of layers 0 1 2   rank 1 holds group 1: K1 Q2       (first half of each group)
//            then gram of what is held, visit by visit
//   pass 1   the rows of the other heads are read again, round by round, exchanged, and multiplied
//
// With a measure of all head pairs blocks of two groups are dealt out: (0 0) (0 1) (1 1), and a rank holds both groups
// of each of its blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/demand.hpp"
#include "plan/loads.hpp"
#include "plan/ownership.hpp"

namespace geom {

/// What the plan must know of the model, the measures and the machine. Bytes throughout.
struct PlanInput {
    ModelShape shape;
    std::vector<MeasureDemand> measures;
    std::int64_t ranks = 1;
    std::int64_t block_bytes = 0;           ///< one hd x D block of a head as kept for products
    std::int64_t folded_block_bytes = 0;    ///< the same of the folded form
    std::int64_t budget = 0;                ///< of host memory, per rank
    std::int64_t process_bytes = 0;         ///< what a rank has before it starts
    bool device = false;                    ///< the backend's memory is not the host's
    std::int64_t device_budget = 0;         ///< of a GPU's memory, per rank
    std::int64_t device_process_bytes = 0;  ///< what the backend takes there before it starts
    bool exchange_on_host = true;           ///< head blocks pass through host memory on their way between ranks
    std::int64_t largest_variable = 0;      ///< of all that will be in the file

    std::int64_t bytes_of(BlockForm form) const noexcept {
        return form == BlockForm::folded ? folded_block_bytes : block_bytes;
    }
};

/// Held blocks that are looked at together.
struct PairVisit {
    std::int64_t left = 0, right = 0;  ///< indices into PairPass::held
    std::vector<std::int64_t> heads;   ///< of the left group, rising, one after the other in what is held of it
    std::vector<Visit> visits;
};

struct PairPass {
    std::vector<GroupShare> held;  ///< by form, then by group
    std::vector<PairVisit> visits;
};

/// Where a rank's memory goes at its worst moment: the host's, or a GPU's.
struct MemoryPlan {
    std::int64_t process = 0;
    std::int64_t blocks = 0;    ///< W_Q and W_K blocks of the heads it holds, of all layers
    std::int64_t stream = 0;    ///< loads in flight
    std::int64_t staging = 0;   ///< blocks of a layer on their way between ranks
    std::int64_t scratch = 0;   ///< while layers are looked at
    std::int64_t products = 0;  ///< scratch while head blocks are looked at, when no layers are in flight
    std::int64_t results = 0;   ///< numbers computed so far, and what measures keep
    std::int64_t transit = 0;  ///< while they are written, when no weights are held: on their way and where they arrive
    std::int64_t total() const noexcept {
        return process + results + std::max(blocks + staging + std::max(stream + scratch, products), transit);
    }
};

struct RankPlan {
    std::vector<Load> loads;          ///< of the first pass, in order: layers, experts, globals
    std::vector<Load> later_loads;    ///< of every other pass: those with head blocks
    std::vector<Load> rising;         ///< of a sweep in which layers build on each other
    std::vector<Load> after;          ///< strips that what this sweep leaves is held against
    std::vector<PairPass> passes;     ///< head blocks held one after the other
    std::int64_t slots = 2;           ///< loads in memory at a time
    std::int64_t bytes_read = 0;      ///< from storage, all passes
    std::vector<std::int64_t> units;  ///< that it computes, by measure
    std::vector<Work> work;           ///< by measure
    MemoryPlan memory;                ///< of the host
    MemoryPlan device;                ///< of its GPU; nothing without one

    std::int64_t flops() const;  ///< of products
};

/// A block of W_K (`head` is then a group) or of W_Q on its way.
struct BlockTransfer {
    bool key = false;
    std::int64_t head = 0;
    std::int64_t layer = 0;  ///< index into Plan::attention_rows
    std::int64_t peer = 0;   ///< where it goes, or where it comes from
    BlockForm form = BlockForm::stored;
};

struct Plan {
    PlanInput input;
    std::int64_t passes = 1;
    bool head_blocks = false;  ///< W_Q and W_K are exchanged
    /// Loads of the rising sweep stay in memory: those of the first sweep are kept for it, and it goes chunk by chunk.
    /// Else it goes row by row, all chunks through one after the other. Either way a byte is read once by each sweep.
    bool resident = false;
    std::vector<std::int64_t> attention_rows;  ///< rows whose head blocks are held, rising
    std::vector<RankPlan> ranks;

    /// Rounds of loading and exchange in a pass: the largest number of loads of a rank.
    std::int64_t rounds(std::int64_t pass) const;
    /// What `rank` brings to round `round`; null for nothing.
    const Load* load(std::int64_t pass, std::int64_t round, std::int64_t rank) const;
    /// Whether any rank brings head blocks to a round.
    bool exchanges(std::int64_t pass, std::int64_t round) const;
    /// Pair visits of a pass: the largest number of a rank.
    std::int64_t pair_rounds(std::int64_t pass) const;
    /// Query heads and groups whose rows are needed by anyone in `pass`, rising.
    std::vector<std::int64_t> heads_in_pass(std::int64_t pass) const;
    std::vector<std::int64_t> groups_in_pass(std::int64_t pass) const;
    /// What `rank` sends and receives in a round, in the order both sides use: by rank, then keys, then queries.
    std::vector<BlockTransfer> sends(std::int64_t pass, std::int64_t round, std::int64_t rank) const;
    std::vector<BlockTransfer> receives(std::int64_t pass, std::int64_t round, std::int64_t rank) const;

    std::int64_t bytes_read() const;
    std::int64_t flops() const;  ///< of products
    std::int64_t peak_bytes() const;
    std::int64_t peak_device_bytes() const;
    double load_imbalance() const;   ///< largest over mean, of bytes read
    double flops_imbalance() const;  ///< largest over mean, over all ranks
};

/// Throws Error(usage) when a budget is too small for the smallest pass (one head a rank), with both numbers, and
/// Error(internal) for units that do not fit their measure.
Plan make_plan(const PlanInput& input);

}  // namespace geom
