// The layers of a rank, one after the other, each read while the one before it is worked on, and on a GPU copied to it
// meanwhile. They lie in a ring of slots; those handed out last stay readable, and the sequence can begin anew.
//
//   three slots, A B C   next() | next() | next() | next() | ...
//   the caller has            0 |    0 1 |    1 2 |    2 3 | ...   the last is the new one, the other previous()
//   in A B C              0 1 2 |  0 1 2 |  3 1 2 |  3 4 2 | ...   what left is overwritten by what is read
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

/// A checkpoint and who reads it.
struct StreamSource {
    const Checkpoint* checkpoint = nullptr;
    Reader* reader = nullptr;
};

class LayerStream {
public:
    /// Starts to read the first layer, for the verbs of `backend`. `slots` >= 2 layers are in memory at a time: the one
    /// handed out, slots - 2 before it that stay readable, and the one being read; all of them where there are no more.
    /// `idle` runs on the caller's thread every 100 ms while next() waits.
    LayerStream(std::vector<StreamSource> sources, Backend& backend, std::vector<LayerRequest> requests,
                std::int64_t slots, std::function<void()> idle);
    ~LayerStream();  ///< stops after the layer that is being read
    LayerStream(const LayerStream&) = delete;
    LayerStream& operator=(const LayerStream&) = delete;

    /// The next layer, in the backend's memory; the one handed out slots - 1 calls ago is given back to be filled anew.
    /// Null after the last, which stays where it is. Throws what reading threw.
    const LayerWeights* next();

    /// The layer that was handed out `back` layers before the last one; null where there is none, or not any more.
    const LayerWeights* previous(std::int64_t back = 1) const;

    /// Begins anew with other layers, or the same ones; all that was handed out is given back. What lies in memory and
    /// is asked for again is not read again, as far as there are slots to keep it. Forgets what reading threw.
    /// Throws Error(internal) when a layer takes more memory than the largest of the constructor's.
    void restart(std::vector<LayerRequest> requests);

    /// Bytes one layer's buffer takes.
    static std::int64_t buffer_bytes(const Checkpoint& checkpoint, const LayerRequest& request);

private:
    struct Slot {
        std::unique_ptr<InputBuffer> buffer;
        LayerRequest request;  // what is in it, when it is full
        LayerWeights weights;
        bool full = false;
    };
    std::int64_t largest_of(const std::vector<LayerRequest>& requests) const;
    void begin(std::vector<LayerRequest> requests);
    const StreamSource& source_of(const LayerRequest& request) const;
    // Of the thread that reads:
    void run();
    Slot* holder_of(const LayerRequest& request) const;
    Slot* replaceable() const;
    std::size_t next_use(const Slot& slot) const;
    void read_into(Slot& slot, std::unique_lock<std::mutex>& lock);
    void fill(Slot& slot) const;

    const std::vector<StreamSource> sources_;
    Backend& backend_;
    const std::size_t most_slots_;
    const std::int64_t slot_bytes_;
    const std::function<void()> idle_;

    mutable std::mutex mutex_;  // of all that follows
    std::condition_variable changed_;
    std::vector<std::unique_ptr<Slot>> slots_;
    std::vector<LayerRequest> requests_;
    std::vector<Slot*> places_;   // of the first of the requests: given_back_ <= given_ <= places_.size()
    std::size_t given_ = 0;       // requests handed out so far
    std::size_t given_back_ = 0;  // of those, no longer readable
    std::uint64_t beginnings_ = 0;
    std::exception_ptr failure_;
    bool quit_ = false;
    std::thread thread_;
};

}  // namespace geom
