// Bytes that somebody owns, in host or device memory. Move-only; frees itself the way it was allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace geom {

enum class Space : std::uint8_t { host, pinned, device };

class Buffer {
public:
    using Free = void (*)(std::byte*, std::int64_t) noexcept;

    Buffer() = default;
    Buffer(std::byte* data, std::int64_t bytes, Space space, Free free) noexcept
        : data_(data), bytes_(bytes), space_(space), free_(free) {}
    ~Buffer() { release(); }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        Buffer(std::move(other)).swap(*this);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    std::byte* data() const noexcept { return data_; }
    std::int64_t size() const noexcept { return bytes_; }
    Space space() const noexcept { return space_; }
    explicit operator bool() const noexcept { return data_ != nullptr; }

    template <class T>
    T* as() const noexcept {
        return reinterpret_cast<T*>(data_);
    }

private:
    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        std::swap(space_, other.space_);
        std::swap(free_, other.free_);
    }
    void release() noexcept {
        if (data_ != nullptr) free_(data_, bytes_);
    }

    std::byte* data_ = nullptr;
    std::int64_t bytes_ = 0;
    Space space_ = Space::host;
    Free free_ = nullptr;
};

/// Host memory, 4096-byte aligned, on huge pages where the system has them, given back to it when freed.
/// Throws Error(usage) with the number of bytes when memory is short.
Buffer allocate_host(std::int64_t bytes);

}  // namespace geom
