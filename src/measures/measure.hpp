// A measure: what it needs and what it writes, as data, and the closures that compute it. One loop (app/schedule) fuses
// all of them into one pass over the weights. Adding one takes a file that defines it, its line in list.cpp, and a
// test.
//
//   needs, units, memory, work   ->  plan: who loads what, which units are computed from it
//   declare                      ->  schema of the result file
//   start                        ->  layer (visit), layer (visit), ..., pair (visit), ..., finish     on every rank
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "core/model_shape.hpp"
#include "core/unit.hpp"
#include "exchange/head_store.hpp"
#include "kernels/backend.hpp"
#include "output/records.hpp"
#include "plan/demand.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

/// Rows of a weight, one after the other, in memory_dtype().
struct StoredRows {
    DType dtype = DType::f32;
    std::int64_t cols = 0;
    Buffer data;
};

/// The i-th number of all of them.
double number_of(const StoredRows& rows, std::int64_t i);

/// What every run of a measure gets; outlives it.
struct MeasureContext {
    const ModelShape& shape;
    const Schema& schema;
    Backend& backend;
    std::function<void(UnitResult)> emit;  ///< takes a finished unit, once
    /// Reads rows of a weight of no layer at once, into the host's memory: those of Needs::besides.
    std::function<StoredRows(WeightFamily, std::span<const Range>)> read_rows = {};
};

/// A layer, some experts of one or a strip of a global, in the backend's memory until the call returns.
struct LayerVisit {
    UnitOf of = UnitOf::layer;
    std::int64_t row = -1;    ///< of ModelShape::layers; -1 for a global
    std::int64_t index = -1;  ///< the global
    Range rows;               ///< of a global: which of its rows
    const LayerWeights& weights;
    const LayerWeights* previous = nullptr;  ///< the row before, where the measure asked for it and there is one
    std::int64_t chunk = 0;                  ///< of a rising sweep
    std::span<std::byte> state = {};         ///< of a rising sweep: what the row before left, to be left for the next;
                                             ///< of a strip after it: what all chunks left, one after the other
    std::span<std::byte> left = {};          ///< of a strip: what is to be left for MeasureWork::strips
    std::span<const Unit> units =
        {};                ///< owed; to be emitted when `complete`, in finish() at the latest; they name the experts
    bool complete = true;  ///< the last strip of a global, the last chunk of a rising sweep
};

/// Blocks of the query heads `heads` of share `left`, and of all heads of share `right`, of all layers with attention.
struct HeadVisit {
    const HeadStore& blocks;
    std::int64_t left = 0, right = 0;     ///< indices into blocks.shares(); the same for one head with itself
    std::span<const std::int64_t> heads;  ///< rising
    std::span<const Unit> units;          ///< owed; to be emitted in this call
};

/// What the looks at all strips left, in the order of rows; on every rank.
struct StripsVisit {
    std::span<const std::byte> left;
    std::span<const Unit> units;  ///< on one rank: owed, to be emitted in this call
};

/// One run of a measure on one rank: closures hold its state.
struct MeasureWork {
    std::function<void(const LayerVisit&)> layer;
    std::function<void(const HeadVisit&)> pair;
    std::function<void()> finish;  ///< when all visits of all ranks are over
    /// Of a rising sweep, called while it returns true, when no rank waits for this one's rows (at the end, or after
    /// each row): emits some of what its last chunks have completed.
    std::function<bool()> settle = {};
    std::function<void(const StripsVisit&)> strips = {};
};

struct Measure {
    std::string_view name;
    std::string_view summary;  ///< one line, for --help
    bool by_default = true;    ///< runs when no measure is named

    Needs (*needs)(const ModelShape&) = nullptr;
    Schema (*declare)(const ModelShape&) = nullptr;           ///< its variables and their scales; equal scales merge
    std::vector<Unit> (*units)(const ModelShape&) = nullptr;  ///< what it will emit, all in all
    MemoryNeed (*memory)(const ModelShape&, Backend&) = nullptr;
    /// Of units that are computed in one call; null: not worth counting.
    Work (*work)(const ModelShape&, std::span<const Unit>) = nullptr;
    /// The context outlives what is returned.
    MeasureWork (*start)(const MeasureContext&) = nullptr;
};

/// All measures of this build, in the order in which results are written (list.cpp).
std::span<const Measure> measures();

/// Null when this build has no measure of that name.
const Measure* find_measure(std::string_view name);

/// The measure as the plan sees it, with those of its units that `is_done` denies.
MeasureDemand demand_of(const Measure& measure, const ModelShape& shape, Backend& backend,
                        const std::function<bool(const Unit&)>& is_done);

/// Scales that several measures share. layer and layer_b are a group's own, labelled with the numbers of its decoder
/// layers, so that sel(layer=7) means the same in every group; the others lie at the root.
Scale layer_scale(const ModelShape& shape, const std::string& group, const std::string& name,
                  const std::vector<std::int64_t>& rows);
Scale root_scale(const std::string& name, std::int64_t length, const std::string& long_name);
Scale head_scale(const ModelShape& shape);

/// Units (measure, layer, row, set) of all rows for which `defined` says yes.
std::vector<Unit> layer_units(std::string_view measure, const std::vector<std::int64_t>& rows, std::int64_t sets = 1);

}  // namespace geom
