// What geom-mpi bench times: each part sets itself up once and adds its rows to the table as often as it is asked.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/bench_table.hpp"
#include "checkpoint/checkpoint.hpp"
#include "kernels/backend.hpp"
#include "mpi/collectives.hpp"

namespace geom {

class BenchPart {
public:
    virtual ~BenchPart() = default;
    virtual void once(BenchTable& table) = 0;
};

/// gemm copy gram heads forward load
std::span<const std::string_view> bench_part_names();

/// The parts of these names, in that order. `shape` for gemm, gram, heads and forward; `model`, on disk, for load, else
/// null. They keep references to all of them.
std::vector<std::unique_ptr<BenchPart>> make_bench_parts(const std::vector<std::string>& names, const Checkpoint& shape,
                                                         const Checkpoint* model, Backend& backend,
                                                         Collectives& collectives);

}  // namespace geom
