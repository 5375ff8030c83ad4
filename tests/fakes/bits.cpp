#include <cstring>

#include "fakes.hpp"

namespace geom::fakes {

namespace {

template <class Bits>
double sum(const std::byte* data, std::int64_t elements) {
    std::uint64_t sum = 0;
    for (std::int64_t i = 0; i < elements; ++i) {
        Bits bits = 0;
        std::memcpy(&bits, data + i * static_cast<std::int64_t>(sizeof bits), sizeof bits);
        sum += bits;
    }
    return static_cast<double>(sum);
}

double sum(const std::byte* data, std::int64_t bytes, std::int64_t element) {
    return element == 2 ? sum<std::uint16_t>(data, bytes / 2) : sum<std::uint32_t>(data, bytes / 4);
}

}  // namespace

double bits_of(const MatrixRef& matrix) {
    const std::int64_t element = size_of(matrix.dtype);
    return sum(matrix.data, matrix.rows * matrix.cols * element, element);
}

double bits_of(const std::byte* block, const HeadBlockFormat& format) {
    return sum(block, format.bytes, size_of(format.dtype));
}

}  // namespace geom::fakes
