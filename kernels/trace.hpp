// Names a stretch of the program on the calling thread for NVIDIA's profilers (NVTX). A build without CUDA has none.
#pragma once

namespace geom {

class TraceRange {
public:
    explicit TraceRange(const char* name);
    ~TraceRange();
    TraceRange(const TraceRange&) = delete;
    TraceRange& operator=(const TraceRange&) = delete;
};

}  // namespace geom
