// The plan of a run as an object for programs.
#pragma once

#include <string>

#include "app/probe.hpp"
#include "app/survey.hpp"

namespace geom {

/// JSON: the model's sizes, and of the plan: ranks, passes, bytes read, flops, the result's bytes, predicted seconds by
/// measure, memory by rank; all in bytes, flops and seconds.
std::string plan_object(const Survey& survey, const Plan& plan, const MachineRates& rates);

}  // namespace geom
