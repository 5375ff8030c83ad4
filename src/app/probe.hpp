// How fast this machine is, in a few hundredths of a second: enough to tell a minute from a day.
#pragma once

#include "kernels/backend.hpp"
#include "mpi/communicator.hpp"
#include "plan/demand.hpp"
#include "plan/plan.hpp"

namespace geom {

/// Per rank, all ranks at work; the slowest rank's.
struct MachineRates {
    double products = 0.0;  ///< flop/s of a large product of the type that head blocks are multiplied in
    double fp64 = 0.0;      ///< flop/s of an fp64 product
    double copy = 0.0;      ///< byte/s, read and written
    double took = 0.0;      ///< seconds, to find this out
};

/// Collective: every rank measures at the same time, as they will work.
MachineRates probe(Backend& backend, const HeadBlockFormat& format, const Communicator& communicator);

/// Seconds of this work on one rank.
double seconds_of(const Work& work, const MachineRates& rates);

/// Seconds of measure `measure` (of the plan's) on its slowest rank.
double predicted_seconds(const Plan& plan, std::size_t measure, const MachineRates& rates);

/// Of all measures, one after the other, on their slowest ranks; without reading, exchange and writing.
double predicted_seconds(const Plan& plan, const MachineRates& rates);

}  // namespace geom
