// The model, and what a run would cost, as text for people.
#pragma once

#include <cstdint>
#include <string>

#include "app/probe.hpp"
#include "app/survey.hpp"

namespace geom {

std::string describe_model(const Checkpoint& checkpoint);

/// What a run is about to do, in two lines.
std::string describe_run(const Survey& survey, const Plan& plan);

/// Bytes of all the numbers that the result will hold.
std::int64_t result_bytes(const Survey& survey);

/// Owners, bytes, flops and memory of every rank; predicted seconds of every measure.
std::string describe_plan(const Survey& survey, const Plan& plan, const MachineRates& rates);

/// "heads 12 s, gram 3 s", of what is not zero; the slowest rank's.
std::string describe_seconds(const Plan& plan, const MachineRates& rates);

}  // namespace geom
