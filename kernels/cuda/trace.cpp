#include "kernels/trace.hpp"

#include <nvtx3/nvToolsExt.h>

namespace geom {

TraceRange::TraceRange(const char* name) { nvtxRangePushA(name); }
TraceRange::~TraceRange() { nvtxRangePop(); }

}  // namespace geom
