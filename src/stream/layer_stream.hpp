// The layers of a rank, one after the other, each read while the one before it is worked on, and on a GPU copied to it
// meanwhile.
//
//   thread of the stream   read 0 -> A, send A | read 1 -> B, send B | wait for A ... read 2 -> A, send A | ...
//   caller                                     | use 0 in A                     | use 1 in B              | ...
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "kernels/backend.hpp"
#include "stream/layer_weights.hpp"
#include "stream/reader.hpp"

namespace geom {

class LayerStream {
public:
    /// Starts to read the first layer, for the verbs of `backend`. `idle` runs on the caller's thread every 100 ms
    /// while next() waits.
    LayerStream(const Checkpoint& checkpoint, Reader& reader, Backend& backend, std::vector<LayerRequest> requests,
                std::function<void()> idle);
    ~LayerStream();  ///< stops after the layer that is being read
    LayerStream(const LayerStream&) = delete;
    LayerStream& operator=(const LayerStream&) = delete;

    /// The next layer, in the backend's memory, valid until the next call; the one before it is given back to be filled
    /// anew. Null after the last. Throws what reading threw.
    const LayerWeights* next();

    /// Bytes one layer's buffer takes.
    static std::int64_t buffer_bytes(const Checkpoint& checkpoint, const LayerRequest& request);

private:
    struct Slot {
        std::unique_ptr<InputBuffer> buffer;
        LayerWeights weights;
        std::vector<Weight> sources;
        bool full = false;
    };
    void run();
    void fill(Slot& slot, const LayerRequest& request);

    const Checkpoint& checkpoint_;
    Reader& reader_;
    std::vector<LayerRequest> requests_;
    std::function<void()> idle_;
    Slot slots_[2];
    std::size_t given_ = 0;  // layers handed out so far
    std::mutex mutex_;
    std::condition_variable changed_;
    std::exception_ptr failure_;
    bool quit_ = false;
    std::thread thread_;
};

}  // namespace geom
