// A device without hardware: memory that nobody can touch but its queue, which does nothing before it is waited for.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <map>
#include <new>
#include <utility>
#include <vector>

#include "core/buffer.hpp"
#include "core/queue.hpp"

namespace geom::test {

class FakeDevice final : public Queue {
public:
    /// Of the device; a touch by the host is a segmentation fault.
    static Buffer allocate(std::int64_t bytes) {
        if (bytes == 0) return {};
        void* data = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED) throw std::bad_alloc();
        regions()[static_cast<std::byte*>(data)] = bytes;
        return {static_cast<std::byte*>(data), bytes, Space::device, [](std::byte* region, std::int64_t size) noexcept {
                    regions().erase(region);
                    ::munmap(region, static_cast<std::size_t>(size));
                }};
    }

    Space space() const noexcept override { return Space::device; }
    Buffer allocate_staging(std::int64_t bytes) override {
        staged_.push_back(bytes);
        Buffer buffer = allocate_host(bytes);
        std::memset(buffer.data(), 0xAA, static_cast<std::size_t>(bytes));
        return buffer;
    }
    void copy(std::byte* to, const std::byte* from, std::int64_t bytes) override {
        pending_.push_back({to, from, bytes});
    }
    void wait() override {
        for (const Copy& copy : std::exchange(pending_, {})) {
            const Opened to(copy.to), from(copy.from);
            std::memmove(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
            if (to.is_device() && from.is_device()) ++inside_;
        }
    }
    void* native() const noexcept override { return nullptr; }

    /// Sizes that allocate_staging() was asked for.
    const std::vector<std::int64_t>& staged() const noexcept { return staged_; }
    /// Copies that did not leave the device.
    int inside() const noexcept { return inside_; }

private:
    struct Copy {
        std::byte* to;
        const std::byte* from;
        std::int64_t bytes;
    };

    // Makes the region of device memory around an address accessible for a while; nothing for an address of the host.
    class Opened {
    public:
        explicit Opened(const std::byte* address) {
            auto after = regions().upper_bound(const_cast<std::byte*>(address));
            if (after == regions().begin()) return;
            const auto& [data, bytes] = *--after;
            if (address >= data + bytes) return;
            data_ = data;
            bytes_ = static_cast<std::size_t>(bytes);
            EXPECT_EQ(::mprotect(data_, bytes_, PROT_READ | PROT_WRITE), 0);
        }
        ~Opened() {
            if (is_device()) ::mprotect(data_, bytes_, PROT_NONE);
        }
        Opened(const Opened&) = delete;
        Opened& operator=(const Opened&) = delete;
        bool is_device() const noexcept { return data_ != nullptr; }

    private:
        std::byte* data_ = nullptr;
        std::size_t bytes_ = 0;
    };

    static std::map<std::byte*, std::int64_t>& regions() {
        static auto& all = *new std::map<std::byte*, std::int64_t>;
        return all;
    }

    std::vector<Copy> pending_;
    std::vector<std::int64_t> staged_;
    int inside_ = 0;
};

}  // namespace geom::test
