#include "core/buffer.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include "core/error.hpp"

namespace geom {

namespace {

void unmap(std::byte* data, std::int64_t bytes) noexcept { ::munmap(data, static_cast<std::size_t>(bytes)); }

}  // namespace

Buffer allocate_host(std::int64_t bytes) {
    if (bytes == 0) return {};
    void* data = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
        throw Error(ExitCode::usage,
                    fmt::format("out of memory: {} bytes could not be allocated; use more ranks, or a smaller "
                                "--memory-budget so that the work is cut into more passes",
                                bytes));
    }
    ::madvise(data, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);  // a hint; its failure does not matter
    return {static_cast<std::byte*>(data), bytes, Space::host, &unmap};
}

}  // namespace geom
