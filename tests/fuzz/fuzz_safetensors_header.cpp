// The header of a safetensors file: any bytes are an Error(input) or tensors that keep every rule of the format.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <unordered_set>

#include "checkpoint/safetensors.hpp"
#include "core/error.hpp"

namespace {

void demand(bool rule) {
    if (!rule) std::abort();
}

void check(const std::vector<geom::TensorInfo>& tensors, std::int64_t file_bytes) {
    std::unordered_set<std::string_view> names;
    std::int64_t data = 0;
    for (const geom::TensorInfo& tensor : tensors) {
        std::int64_t bytes = geom::size_of(tensor.dtype);
        for (const std::int64_t n : tensor.shape) demand(n >= 0 && !__builtin_mul_overflow(bytes, n, &bytes));
        demand(bytes == tensor.bytes && tensor.offset >= 10 && tensor.bytes <= file_bytes - tensor.offset);
        demand(names.insert(tensor.name).second);
        data += bytes;
    }
    demand(data < file_bytes);
}

void parse(std::string_view prefix, std::int64_t file_bytes) {
    try {
        check(geom::parse_safetensors_header(prefix, file_bytes, "fuzz"), file_bytes);
    } catch (const geom::Error& error) {
        demand(error.code() == geom::ExitCode::input && *error.what() != '\0');
    }
}

}  // namespace

/// The input is a whole file. Read a second time it is the start of a larger one: its last 8 bytes say by how much.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view file(reinterpret_cast<const char*>(data), size);
    parse(file, static_cast<std::int64_t>(size));
    if (size < 8) return 0;
    std::uint64_t more = 0;
    for (std::size_t i = 0; i < 8; ++i) more |= std::uint64_t{data[size - 8 + i]} << (8 * i);
    parse(file, static_cast<std::int64_t>(size) + static_cast<std::int64_t>(more >> 2));
    return 0;
}
