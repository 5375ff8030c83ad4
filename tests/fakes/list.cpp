// The measures of the program that tests run (build/tests/geom-mpi-fakes): those of geom-mpi and the fakes. Stands in
// for src/measures/list.cpp.
#include <array>

#include "fakes.hpp"
#include "measures/gram.hpp"
#include "measures/heads.hpp"

namespace geom {

std::span<const Measure> measures() {
    static const std::array all{
        gram_measure(),         heads_measure(),          fakes::step_measure(),    fakes::walk_measure(),
        fakes::pairs_measure(), fakes::globals_measure(), fakes::experts_measure(),
    };
    return all;
}

}  // namespace geom
