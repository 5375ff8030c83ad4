// The plan of a run: who loads what, who multiplies what, how often the weights are read, and what that costs.
// Pure integers: no MPI, no GPU, no file. Every rank computes the whole plan and finds itself in it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/ownership.hpp"

namespace geom {

/// What the plan must know of the model, the options and the machine. Bytes throughout.
struct PlanInput {
    std::int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0;
    PartBytes part_bytes;                     ///< what the chosen measures read of every layer
    std::vector<std::int64_t> layer_memory;   ///< of the same, once in memory (f8 is widened)
    bool head_blocks = false;                 ///< gram or match runs: W_Q and W_K go to the owners of heads
    std::int64_t block_bytes = 0;             ///< one hd x D block of a head as kept for products
    std::int64_t stored_row_block = 0;        ///< the same block as stored in the checkpoint
    bool all_weights_in_first_pass = false;   ///< measures other than gram and match read too
    std::vector<std::int64_t> pending_heads;  ///< of gram, rising
    std::int64_t ranks = 1;
    std::int64_t budget = 0;                ///< of host memory, per rank
    std::int64_t process_bytes = 0;         ///< what a rank has before it starts
    std::int64_t scratch_bytes = 0;         ///< of the backend's products, in its memory
    std::int64_t layer_scratch_bytes = 0;   ///< of the measures that look at one layer, in the backend's memory
    std::int64_t kept_scratch_bytes = 0;    ///< of that, what stays when the layers are done
    std::int64_t layer_host_bytes = 0;      ///< of the same measures, in the host's memory
    bool device = false;                    ///< the backend's memory is not the host's
    std::int64_t device_budget = 0;         ///< of a GPU's memory, per rank
    std::int64_t device_process_bytes = 0;  ///< what the backend takes there before it starts
    bool exchange_on_host = true;           ///< head blocks pass through host memory on their way between ranks
    std::int64_t result_bytes = 0;          ///< all measures' numbers together
    std::int64_t largest_variable = 0;      ///< the largest share of one variable in them
};

/// Where a rank's memory goes at its worst moment: the host's, or a GPU's.
struct MemoryPlan {
    std::int64_t process = 0;
    std::int64_t blocks = 0;    ///< W_Q and W_K blocks of the heads it holds, of all layers
    std::int64_t stream = 0;    ///< two layers in flight
    std::int64_t staging = 0;   ///< blocks of a layer on their way between ranks
    std::int64_t scratch = 0;   ///< while layers are looked at
    std::int64_t products = 0;  ///< scratch while head blocks are multiplied, when no layers are in flight
    std::int64_t results = 0;   ///< numbers computed so far
    std::int64_t transit = 0;  ///< while they are written, when no weights are held: on their way and where they arrive
    std::int64_t total() const noexcept {
        return process + results + std::max(blocks + staging + std::max(stream + scratch, products), transit);
    }
};

struct RankPlan {
    std::vector<LoadItem> loads;                  ///< in order; the same in every pass
    std::vector<std::vector<GroupShare>> passes;  ///< heads held in each pass
    std::int64_t bytes_read = 0;                  ///< from storage, all passes
    std::int64_t flops = 0;                       ///< of gram
    MemoryPlan memory;                            ///< of the host
    MemoryPlan device;                            ///< of its GPU; nothing without one
};

/// A block of W_K (`head` is then a key/value head) or of W_Q on its way.
struct BlockTransfer {
    bool key = false;
    std::int64_t head = 0;
    std::int64_t layer = 0;
    std::int64_t peer = 0;  ///< where it goes, or where it comes from
};

struct Plan {
    PlanInput input;
    std::int64_t passes = 1;
    std::vector<RankPlan> ranks;

    /// Rounds of loading and exchange in a pass: the largest number of loads of a rank.
    std::int64_t rounds() const;
    /// The layer whose attention weights `rank` brings to round `round`; -1 for none.
    std::int64_t attention_layer(std::int64_t rank, std::int64_t round) const;
    /// Query heads and key/value heads whose rows are needed by anyone in `pass`, rising.
    std::vector<std::int64_t> heads_in_pass(std::int64_t pass) const;
    std::vector<std::int64_t> groups_in_pass(std::int64_t pass) const;
    /// What `rank` sends and receives in a round, in the order both sides use: by rank, then keys, then queries.
    std::vector<BlockTransfer> sends(std::int64_t pass, std::int64_t round, std::int64_t rank) const;
    std::vector<BlockTransfer> receives(std::int64_t pass, std::int64_t round, std::int64_t rank) const;

    std::int64_t bytes_read() const;
    std::int64_t flops() const;
    std::int64_t peak_bytes() const;
    std::int64_t peak_device_bytes() const;
    double load_imbalance() const;   ///< largest over mean, of bytes read
    double flops_imbalance() const;  ///< largest over mean, over all ranks
};

/// Throws Error(usage) when a budget is too small for the smallest pass (one head a rank), with both numbers.
Plan make_plan(const PlanInput& input);

}  // namespace geom
