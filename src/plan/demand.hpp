// What measures need, as data, and what that demands of every layer: which weights, what has to lie on one rank, what
// it costs. Pure: no MPI, no file, no backend.
//
//   needs of heads     {q k}                        parts of layer l   [q k]  [gate up down]  [v]  [o]
//   needs of spectra   {q} {k} {v} {o} {gate} ...   ->                 what any measure needs together is one part,
//   needs of variation {gate up down}                                  and a part is never divided among ranks
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/model_shape.hpp"
#include "core/range.hpp"
#include "core/unit.hpp"
#include "plan/ownership.hpp"

namespace geom {

enum class HeadPairs : std::uint8_t {
    none,
    same_head,  ///< a head with itself in all layers: units of UnitOf::head
    all_heads,  ///< every head with every head, by query head and group: units of UnitOf::pair
};

/// A sweep in which what one layer makes is what the next one takes (a forward pass).
struct Rising {
    std::int64_t chunks = 0;       ///< pieces that go through all layers one after the other; 0: no such sweep
    std::int64_t state_bytes = 0;  ///< of host memory, that a chunk carries from layer to layer
    bool experts = false;          ///< all experts of a mixture come with its layer
    /// Index into ModelShape::globals: what all chunks left is held against it in the end, in strips of its rows that
    /// all ranks share. Its unit is (global, after); -1: nothing is.
    std::int64_t after = -1;
    std::int64_t strip_bytes = 0;  ///< of host memory, that a look at a strip leaves
};

/// Rows of a weight.
struct WeightRows {
    std::int64_t row = 0;  ///< of ModelShape::layers; -1 for a global
    WeightFamily family = WeightFamily::q_proj;
    std::int64_t expert = -1;
    Range rows;
};

/// What a measure wants to have in its hands.
struct Needs {
    /// Families of a layer that must lie on one rank; unit (layer, row, i) is what together[i] gives. Families that a
    /// layer lacks are left out.
    std::vector<std::vector<WeightFamily>> together;
    bool previous_layer = false;  ///< the same families of the row before
    bool experts = false;         ///< gate, up and down of experts, some of a layer at a time
    bool globals = false;         ///< ModelShape::globals, in strips of rows
    Rising rising;
    HeadPairs pairs = HeadPairs::none;
    BlockForm form = BlockForm::stored;  ///< of the head blocks it wants
    /// What a unit reads by itself besides: too few rows to be planned.
    std::vector<std::pair<Unit, WeightRows>> besides = {};
};

/// What units cost, in the terms a machine's rates are measured in.
struct Work {
    std::int64_t products = 0;  ///< flops of large products of head blocks
    std::int64_t fp64 = 0;      ///< flops of fp64 products that take as long as the dense work
    Work& operator+=(const Work& other) noexcept {
        products += other.products;
        fp64 += other.fp64;
        return *this;
    }
};

/// Bytes that a measure takes besides weights, head blocks and its numbers.
struct MemoryNeed {
    std::int64_t layer = 0;       ///< of the backend's memory, while it looks at a layer
    std::int64_t layer_host = 0;  ///< of the host's, likewise
    std::int64_t pair = 0;        ///< of the backend's, while it looks at head blocks
    std::int64_t pair_host = 0;   ///< of the host's, likewise
    std::int64_t kept = 0;        ///< of the backend's, from its first layer to the end of the run
    std::int64_t kept_host = 0;   ///< of the host's, likewise
    std::int64_t row = 0;         ///< of the backend's, for a row of a rising sweep until its units are emitted
    std::int64_t row_host = 0;    ///< of the host's, likewise
    std::int64_t after = 0;       ///< of the backend's, while it looks at strips after a rising sweep
    std::int64_t after_host = 0;  ///< of the host's, likewise
};

/// A measure as the plan sees it.
struct MeasureDemand {
    std::string name;
    Needs needs;
    std::vector<Unit> owed;  ///< what it still has to emit, rising
    MemoryNeed memory;
    std::int64_t units = 0;             ///< all of it, done or not; each has the same share of the numbers
    std::int64_t result_bytes = 0;      ///< of all its numbers
    std::int64_t largest_variable = 0;  ///< bytes of the largest among them
    /// Of units that are computed in one call; none: nothing worth counting.
    std::function<Work(const ModelShape&, std::span<const Unit>)> work;
};

/// Units of one measure that are computed together, in one call.
struct Visit {
    std::int64_t measure = 0;  ///< index into the demands
    std::vector<Unit> units;
};

/// What must lie on one rank: some families of a layer, or an expert.
struct Part {
    std::int64_t row = 0;
    std::int64_t expert = -1;
    std::vector<WeightFamily> whole;     ///< families wanted as whole matrices, rising
    std::vector<WeightFamily> previous;  ///< of these, wanted of the row before as well
    bool heads = false;                  ///< W_Q and W_K go to the owners of heads (where not whole: rows of a pass)
    std::vector<Visit> visits;
    std::int64_t bytes = 0;                 ///< as stored, in the first pass at most
    std::vector<WeightFamily> rising = {};  ///< families that a rising sweep reads, rising
    /// Reading and work on it, as flops of fp64: a byte takes about as long as sixteen of them.
    std::int64_t cost = 0;
};

struct Demand {
    std::vector<std::vector<Part>> rows;  ///< of every row of the shape; empty where nothing is wanted
    std::vector<Part> globals;            ///< row -1, expert = index into ModelShape::globals
    bool heads = false;                   ///< head blocks are exchanged
    bool folded = false;                  ///< some of them in folded form: the input norm is at hand with them
    bool rising = false;                  ///< a layer is not divided: what goes from layer to layer has one way
    std::vector<Visit> after;             ///< units of what is held against a global after the rising sweep
};

/// Throws Error(internal) for a unit that does not fit its measure's needs or the shape.
Demand demand_of(const ModelShape& shape, std::span<const MeasureDemand> measures);

/// What a unit is computed from, so far as no other unit of its measure says so: all units of a measure together name
/// all that it reads. Of a pair of heads that is its query head, and that head's key.
std::vector<WeightRows> rows_read(const ModelShape& shape, const Needs& needs, const Unit& unit);

/// Rows of a global that are in memory at a time: what 64 MiB hold, by the model alone.
std::int64_t strip_rows(const WeightShape& global) noexcept;
/// Rows of the strips that ranks share after a rising sweep: what 8 MiB hold.
std::int64_t shared_strip_rows(const WeightShape& global) noexcept;

/// Experts of a layer that are in memory at a time: as many as 64 MiB hold and one at least, by the model alone.
std::int64_t experts_at_a_time(const LayerShape& layer) noexcept;

}  // namespace geom
