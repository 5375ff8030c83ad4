// Groups of head blocks as a checkpoint stores them, packed for a backend, with what the reference knows of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "kernels/backend.hpp"
#include "reference/tile_dots.hpp"
#include "support/backend_memory.hpp"

namespace geom::test {

struct Shape {
    std::int64_t layers, heads, head_dim, hidden;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& s) {
    return out << "L" << s.layers << " heads " << s.heads << " hd" << s.head_dim << " D" << s.hidden;
}

// Unit roundoff of what products accumulate in.
inline double roundoff(DType stored) { return stored == DType::f64 ? 0x1p-53 : 0x1p-24; }

// In the accumulator's unit roundoff u, a product of two rows of D elements is off by at most D u |a| |b|, and by about
// sqrt(D) u |a| |b| / 4 when signs are random; summing hd^2 of them averages more of it away. 2 + sqrt(D) / 16 of u is
// a few times what is left: it finds a lost column and a lost bit, which the bound for the worst case, D u, would not.
inline double allowed(DType stored, std::int64_t hidden) {
    return roundoff(stored) * (2.0 + std::sqrt(static_cast<double>(hidden)) / 16.0);
}

/// A block's stored elements, and the numbers they stand for.
struct StoredBlock {
    std::vector<std::byte> bytes;
    reference::Block values;
};

inline StoredBlock stored(const std::vector<double>& wanted, DType dtype) {
    StoredBlock block{std::vector<std::byte>(wanted.size() * static_cast<std::size_t>(size_of(dtype))), {}};
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        std::byte* at = block.bytes.data() + i * static_cast<std::size_t>(size_of(dtype));
        const auto put = [&](auto bits, double value) {
            std::memcpy(at, &bits, sizeof bits);
            block.values.push_back(value);
        };
        const auto single = static_cast<float>(wanted[i]);
        switch (dtype) {
            case DType::bf16:
                put(f32_to_bf16(single), bf16_to_f32(f32_to_bf16(single)));
                break;
            case DType::f16:
                put(f64_to_f16(wanted[i]), f16_to_f32(f64_to_f16(wanted[i])));
                break;
            case DType::f32:
                put(single, single);
                break;
            default:
                put(wanted[i], wanted[i]);
        }
    }
    return block;
}

/// Blocks of stored elements, packed one after the other in the backend's memory, each without its exponent.
inline Buffer packed_blocks(Backend& backend, const HeadBlockFormat& format, DType dtype,
                            const std::vector<std::vector<std::byte>>& blocks,
                            const std::vector<std::int32_t>& exponents = {}) {
    Buffer packed = backend.allocate(std::ssize(blocks) * format.bytes);
    std::vector<Buffer> held;
    std::vector<MatrixRef> rows;
    std::vector<std::byte*> out;
    for (const auto& bytes : blocks) {
        out.push_back(packed.data() + std::ssize(rows) * format.bytes);
        held.push_back(to_backend(backend, bytes));
        const std::int32_t exponent = exponents.empty() ? 0 : exponents[rows.size()];
        rows.push_back({held.back().data(), dtype, format.head_dim, format.hidden, exponent});
    }
    backend.head_products().pack(rows, format, out);
    backend.queue().wait();
    return packed;
}

/// The blocks of a group as stored, and the same for the reference.
class StoredGroup {
public:
    /// Entries of variance 1/D, to which every layer's share what they have in common.
    StoredGroup(const Shape& shape, DType dtype, unsigned seed = 1) : shape_(shape), dtype_(dtype), random_(seed) {
        reference_.head_dim = shape.head_dim;
        reference_.hidden = shape.hidden;
        const auto common = drawn();
        for (std::int64_t l = 0; l < shape.layers; ++l) add(reference_.k, mixed(common));
        for (std::int64_t h = 0; h < shape.heads; ++h) {
            const auto head = drawn();
            reference_.q.emplace_back();
            for (std::int64_t l = 0; l < shape.layers; ++l) add(reference_.q.back(), mixed(head));
        }
    }

    void set_zero(std::int64_t block) {
        auto& bytes = blocks_[static_cast<std::size_t>(block)];
        std::fill(bytes.begin(), bytes.end(), std::byte{0});
        auto& values = block < shape_.layers ? reference_.k[static_cast<std::size_t>(block)]
                                             : reference_.q[static_cast<std::size_t>(block / shape_.layers - 1)]
                                                           [static_cast<std::size_t>(block % shape_.layers)];
        std::fill(values.begin(), values.end(), 0.0);
    }

    /// All blocks packed one after the other: k[layer], q[head][layer].
    Buffer packed(Backend& backend, const HeadBlockFormat& format) const {
        return packed_blocks(backend, format, dtype_, blocks_);
    }

    std::vector<double> tile_dots(Backend& backend, std::string* path = nullptr) const {
        const HeadBlockFormat format = backend.head_products().format(dtype_, shape_.head_dim, shape_.hidden);
        if (path != nullptr) *path = format.path;
        const Buffer blocks = packed(backend, format);
        std::vector<double> gram(static_cast<std::size_t>(shape_.heads * shape_.layers * shape_.layers), -1.0);
        backend.head_products().tile_dots(
            {shape_.layers, shape_.heads, blocks.data(), blocks.data() + shape_.layers * format.bytes}, format, gram);
        return gram;
    }

    const reference::Group& reference() const { return reference_; }

private:
    std::vector<double> drawn() {
        std::normal_distribution<double> normal(0.0, 1.0 / std::sqrt(static_cast<double>(shape_.hidden)));
        std::vector<double> values(static_cast<std::size_t>(shape_.head_dim * shape_.hidden));
        for (double& value : values) value = normal(random_);
        return values;
    }
    std::vector<double> mixed(const std::vector<double>& common) {
        std::vector<double> values = drawn();
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.8 * common[i] + 0.6 * values[i];
        return values;
    }
    void add(std::vector<reference::Block>& to, const std::vector<double>& wanted) {
        StoredBlock block = stored(wanted, dtype_);
        blocks_.push_back(std::move(block.bytes));
        to.push_back(std::move(block.values));
    }

    Shape shape_;
    DType dtype_;
    std::mt19937 random_;
    reference::Group reference_;
    std::vector<std::vector<std::byte>> blocks_;  // k[layer], q[head][layer]
};

}  // namespace geom::test
