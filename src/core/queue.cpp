#include "core/queue.hpp"

#include <cstring>

namespace geom {

namespace {

class HostQueue final : public Queue {
public:
    Space space() const noexcept override { return Space::host; }
    Buffer allocate_staging(std::int64_t bytes) override { return allocate_host(bytes); }
    void copy(std::byte* to, const std::byte* from, std::int64_t bytes) override {
        std::memcpy(to, from, static_cast<std::size_t>(bytes));
    }
    void wait() override {}
    void* native() const noexcept override { return nullptr; }
};

}  // namespace

Queue& host_queue() {
    static HostQueue queue;
    return queue;
}

}  // namespace geom
