// What CudaDenseBatch keeps between calls: scratch memory on the device, and pinned memory on both ways to it. All of
// it is used in the order of one stream, so a verb may take what the verb before it has not finished with.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <tuple>
#include <type_traits>
#include <vector>

#include "core/buffer.hpp"
#include "kernels/cuda/device.hpp"

namespace geom::cuda {

class BatchMemory {
public:
    explicit BatchMemory(Device& device) : device_(device) {}
    BatchMemory(const BatchMemory&) = delete;
    BatchMemory& operator=(const BatchMemory&) = delete;

    /// Pieces of the device's scratch memory of so many doubles, 256-byte aligned. Once a verb: what an earlier call
    /// gave is lost.
    template <std::size_t N>
    std::array<double*, N> scratch(const std::array<std::int64_t, N>& doubles) {
        reserve_scratch(bytes_of(doubles));
        std::array<double*, N> pieces;
        double* next = scratch_.as<double>();
        for (std::size_t i = 0; i < N; ++i) {
            pieces[i] = next;
            next += rounded(doubles[i]);
        }
        return pieces;
    }

    /// What scratch(doubles) takes.
    template <std::size_t N>
    static std::int64_t bytes_of(const std::array<std::int64_t, N>& doubles) {
        return std::accumulate(doubles.begin(), doubles.end(), std::int64_t{0},
                               [](std::int64_t sum, std::int64_t n) { return sum + 8 * rounded(n); });
    }

    /// The arrays on the device, for what is issued from now on. Once a verb, with all that it needs: what an earlier
    /// call gave may be overwritten.
    template <class... T>
    std::tuple<const T*...> upload(const std::vector<T>&... arrays) {
        static_assert((std::is_trivially_copyable_v<T> && ...));
        std::byte* host = reserve_upload((aligned(bytes_in(arrays)) + ... + 0));
        std::byte* device = device_of(host);
        std::int64_t end = 0;
        const auto put = [&]<class U>(const std::vector<U>& array) {
            const std::int64_t begin = end;
            end += aligned(bytes_in(array));
            if (!array.empty()) std::memcpy(host + begin, array.data(), array.size() * sizeof(U));
            return reinterpret_cast<const U*>(device + begin);
        };
        const std::tuple<const T*...> result{put(arrays)...};
        send(host, end);
        return result;
    }

    /// `count` numbers from the device's memory, when everything issued so far is done; until the next call.
    template <class T>
    std::span<const T> fetch(const T* from, std::int64_t count) {
        const std::byte* landed = fetch_bytes(from, count * static_cast<std::int64_t>(sizeof(T)));
        return {reinterpret_cast<const T*>(landed), static_cast<std::size_t>(count)};
    }

    /// Device::wait(), after which no upload is in the way of the next.
    void wait();

    /// Bytes of the device's memory that are held now.
    std::int64_t held_bytes() const noexcept { return scratch_.size() + upload_device_.size(); }

    static constexpr std::int64_t least_upload = std::int64_t{256} << 10;  ///< bytes for uploads, unless one is larger

private:
    static constexpr std::int64_t rounded(std::int64_t doubles) { return (doubles + 31) / 32 * 32; }
    static constexpr std::int64_t aligned(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }
    template <class T>
    static std::int64_t bytes_in(const std::vector<T>& array) {
        return static_cast<std::int64_t>(array.size() * sizeof(T));
    }
    std::byte* device_of(const std::byte* host) const {
        return host == nullptr ? nullptr : upload_device_.data() + (host - upload_host_.data());
    }

    void reserve_scratch(std::int64_t bytes);
    std::byte* reserve_upload(std::int64_t bytes);
    void send(const std::byte* host, std::int64_t bytes);
    const std::byte* fetch_bytes(const void* from, std::int64_t bytes);

    Device& device_;
    Buffer scratch_;
    Buffer upload_host_, upload_device_;  ///< of one size: what lies at an offset of one is sent to it in the other
    std::int64_t uploaded_ = 0;           ///< bytes of them that may still be on their way
    Buffer landing_;
};

}  // namespace geom::cuda
