// match: inner products of the QK operators of every head of every layer with every other. Which head of a layer is
// matched with which of another follows from them (derivations/matching.hpp).
#pragma once

#include "measures/measure.hpp"

namespace geom {

Measure match_measure();

}  // namespace geom
