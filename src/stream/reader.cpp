#include "stream/reader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "checkpoint/synthetic.hpp"
#include "core/crc32c.hpp"
#include "core/error.hpp"
#include "stream/layer_weights.hpp"

namespace geom {

namespace {

bool is_f8(DType dtype) { return memory_dtype(dtype) != dtype; }

template <class T>
std::int64_t first_with_full_exponent(const std::byte* data, std::int64_t elements, T mask) {
    const T* values = reinterpret_cast<const T*>(data);
    constexpr std::int64_t stride = 4096;  // looked at as a whole first, without branches
    for (std::int64_t begin = 0; begin < elements; begin += stride) {
        const std::int64_t end = std::min(elements, begin + stride);
        T found = 0;
        for (std::int64_t i = begin; i < end; ++i)
            found = static_cast<T>(found | ((values[i] & mask) == mask ? T{1} : T{0}));
        if (found == 0) continue;
        for (std::int64_t i = begin; i < end; ++i) {
            if ((values[i] & mask) == mask) return i;
        }
    }
    return -1;
}

// splitmix64's finaliser: spreads the bits of what is summed.
std::uint64_t mixed(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

// Of the rows for which `fresh` is true.
std::uint64_t digest_of(const Weight& weight, Range rows, const std::vector<bool>& fresh, const std::byte* stored) {
    const std::uint64_t name = std::uint64_t{crc32c(0, weight.tensor.data(), weight.tensor.size())} << 32;
    std::uint64_t sum = 0;
    for (std::int64_t row = rows.begin; row < rows.end; ++row, stored += weight.row_bytes()) {
        if (!fresh[static_cast<std::size_t>(row - rows.begin)]) continue;
        const std::uint32_t crc = crc32c(0, stored, static_cast<std::size_t>(weight.row_bytes()));
        sum += mixed(mixed(name + static_cast<std::uint64_t>(weight.first_row + row)) + crc);
    }
    return sum;
}

void widen_f8(const Weight& weight, Range rows, const std::byte* stored, std::byte* out) {
    const auto* from = reinterpret_cast<const std::uint8_t*>(stored);
    auto* to = reinterpret_cast<float*>(out);
    const bool e4m3 = weight.dtype == DType::f8_e4m3;
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        const float* scales = weight.scales.data() + (weight.first_row + row) / weight.scale_rows * weight.scale_stride;
        for (std::int64_t col = 0; col < weight.cols; ++col, ++from, ++to) {
            *to = (e4m3 ? f8_e4m3_to_f32(*from) : f8_e5m2_to_f32(*from)) * scales[col / weight.scale_cols];
        }
    }
}

}  // namespace

std::int64_t first_not_finite(DType dtype, const std::byte* data, std::int64_t elements) {
    switch (dtype) {
        case DType::bf16:
            return first_with_full_exponent<std::uint16_t>(data, elements, 0x7f80U);
        case DType::f16:
            return first_with_full_exponent<std::uint16_t>(data, elements, 0x7c00U);
        case DType::f32:
            return first_with_full_exponent<std::uint32_t>(data, elements, 0x7f800000U);
        case DType::f64:
            return first_with_full_exponent<std::uint64_t>(data, elements, 0x7ff0000000000000ULL);
        case DType::f8_e5m2:
            return first_with_full_exponent<std::uint8_t>(data, elements, 0x7cU);
        case DType::f8_e4m3:
            return first_with_full_exponent<std::uint8_t>(data, elements, 0x7fU);
        default:
            return -1;
    }
}

Reader::Reader(std::vector<std::filesystem::path> files, int threads)
    : files_(std::move(files)), descriptors_(files_.size(), -1), workers_(threads) {}

Reader::~Reader() {
    for (const int descriptor : descriptors_) {
        if (descriptor >= 0) ::close(descriptor);
    }
}

void Reader::read(std::span<const ReadJob> jobs) {
    std::vector<Piece> pieces;
    for (const ReadJob& job : jobs) {
        const Weight& weight = *job.weight;
        const std::int64_t rows = std::max<std::int64_t>(1, piece_bytes / weight.row_bytes());
        const std::int64_t out_row = weight.cols * size_of(memory_dtype(weight.dtype));
        for (std::int64_t row = job.rows.begin; row < job.rows.end; row += rows) {
            pieces.push_back(
                {&weight, {row, std::min(job.rows.end, row + rows)}, job.out + (row - job.rows.begin) * out_row});
        }
    }
    workers_.for_each(static_cast<std::int64_t>(pieces.size()),
                      [&](std::int64_t i, int) { read_piece(pieces[static_cast<std::size_t>(i)]); });
}

void Reader::read_piece(const Piece& piece) {
    const Weight& weight = *piece.weight;
    const std::int64_t bytes = piece.rows.size() * weight.row_bytes();
    std::vector<std::byte> narrow(is_f8(weight.dtype) ? static_cast<std::size_t>(bytes) : 0);
    std::byte* stored = narrow.empty() ? piece.out : narrow.data();
    read_bytes(weight, piece.rows, stored);
    check_finite(weight, piece.rows, weight.dtype, stored);
    bytes_read_ += bytes;
    digest_ += digest_of(weight, piece.rows, mark_read(weight, piece.rows), stored);
    if (narrow.empty()) return;
    widen_f8(weight, piece.rows, stored, piece.out);
    check_finite(weight, piece.rows, DType::f32, piece.out);  // a scale may be too large, or none
}

void Reader::check_finite(const Weight& weight, Range rows, DType dtype, const std::byte* data) const {
    const std::int64_t bad = first_not_finite(dtype, data, rows.size() * weight.cols);
    if (bad < 0) return;
    const auto* file = std::get_if<FileSource>(&weight.source);
    throw Error(
        ExitCode::numerics,
        fmt::format("{}: tensor '{}' holds NaN or infinity at row {}, column {}{}: no measure of it would mean "
                    "anything; the checkpoint is damaged, or it was saved from a run that had diverged",
                    file != nullptr ? files_[static_cast<std::size_t>(file->file)].string() : "synthetic weights",
                    weight.tensor, weight.first_row + rows.begin + bad / weight.cols, bad % weight.cols,
                    dtype == weight.dtype ? "" : " once multiplied by its scale"));
}

std::vector<bool> Reader::mark_read(const Weight& weight, Range rows) {
    const auto begin = static_cast<std::size_t>(weight.first_row + rows.begin),
               n = static_cast<std::size_t>(rows.size());
    std::vector<bool> fresh(n);
    const std::lock_guard lock(seen_mutex_);
    std::vector<bool>& seen = seen_[weight.tensor];
    if (seen.size() < begin + n) seen.resize(begin + n);
    for (std::size_t i = 0; i < n; ++i) {
        fresh[i] = !seen[begin + i];
        seen[begin + i] = true;
    }
    return fresh;
}

void Reader::read_bytes(const Weight& weight, Range rows, std::byte* out) {
    if (const auto* source = std::get_if<SyntheticSource>(&weight.source)) {
        generate(*source, weight.dtype, rows.begin * weight.cols, rows.end * weight.cols, out);
        return;
    }
    const FileSource& source = std::get<FileSource>(weight.source);
    const int descriptor = open_file(source.file);
    std::int64_t at = source.offset + rows.begin * weight.row_bytes(), left = rows.size() * weight.row_bytes();
    while (left > 0) {
        const ::ssize_t got = ::pread(descriptor, out, static_cast<std::size_t>(left), at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            throw Error(ExitCode::input,
                        fmt::format("{}: tensor '{}': {} bytes at offset {} could not be read: {}",
                                    files_[static_cast<std::size_t>(source.file)].string(), weight.tensor, left, at,
                                    got == 0 ? "the file ends before them; it was cut or changed while it was read"
                                             : std::strerror(errno)));
        }
        at += got;
        left -= got;
        out += got;
    }
}

int Reader::open_file(std::int32_t file) {
    const std::lock_guard lock(open_mutex_);
    int& descriptor = descriptors_[static_cast<std::size_t>(file)];
    if (descriptor < 0) {
        const std::string path = files_[static_cast<std::size_t>(file)].string();
        descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (descriptor < 0)
            throw Error(ExitCode::input, fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
    }
    return descriptor;
}

}  // namespace geom
