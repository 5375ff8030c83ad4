#include "stream/reader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

#include "checkpoint/json.hpp"
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

// The largest magnitude, as its bits. Signed integers: every processor has their maximum, and order as magnitudes do.
template <class T>
T largest_bits(const std::byte* data, std::int64_t elements) {
    const T* values = reinterpret_cast<const T*>(data);
    T largest = 0;
    for (std::int64_t i = 0; i < elements; ++i)
        largest = std::max(largest, static_cast<T>(values[i] & std::numeric_limits<T>::max()));
    return largest;
}

double largest_magnitude(DType dtype, const std::byte* data, std::int64_t elements) {
    switch (dtype) {
        case DType::bf16:
            return bf16_to_f32(static_cast<std::uint16_t>(largest_bits<std::int16_t>(data, elements)));
        case DType::f16:
            return f16_to_f32(static_cast<std::uint16_t>(largest_bits<std::int16_t>(data, elements)));
        case DType::f32:
            return std::bit_cast<float>(largest_bits<std::int32_t>(data, elements));
        case DType::f64:
            return std::bit_cast<double>(largest_bits<std::int64_t>(data, elements));
        default:
            throw Error(ExitCode::internal, fmt::format("no weights are {} in memory", name_of(dtype)));
    }
}

// splitmix64's finaliser: spreads the bits of what is summed.
std::uint64_t mixed(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

std::uint64_t digest_key(const std::string& tensor) {
    return std::uint64_t{crc32c(0, tensor.data(), tensor.size())} << 32;
}

// What a row of a tensor adds to the digest.
std::uint64_t digest_term(std::uint64_t key, std::int64_t row, std::uint32_t crc) {
    return mixed(mixed(key + static_cast<std::uint64_t>(row)) + crc);
}

float scale_at(const std::byte* stored, DType dtype) {
    const auto byte = [stored](int i) { return std::to_integer<std::uint32_t>(stored[i]); };
    if (dtype == DType::bf16) return bf16_to_f32(static_cast<std::uint16_t>(byte(0) | (byte(1) << 8)));
    return std::bit_cast<float>(byte(0) | (byte(1) << 8) | (byte(2) << 16) | (byte(3) << 24));
}

void widen_f8(const Weight& weight, Range rows, const float* scales, const std::byte* stored, std::byte* out) {
    const auto* from = reinterpret_cast<const std::uint8_t*>(stored);
    auto* to = reinterpret_cast<float*>(out);
    const bool e4m3 = weight.dtype == DType::f8_e4m3;
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        const float* of_row = scales + (weight.first_row + row) / weight.scales->block_rows * weight.scales->cols;
        for (std::int64_t col = 0; col < weight.cols; ++col, ++from, ++to) {
            *to = (e4m3 ? f8_e4m3_to_f32(*from) : f8_e5m2_to_f32(*from)) * of_row[col / weight.scales->block_cols];
        }
    }
}

}  // namespace

std::int16_t exponent_of(DType dtype, const std::byte* data, std::int64_t elements) {
    const double largest = largest_magnitude(dtype, data, elements);
    if (largest == 0) return exponent_of_zero;
    if (!std::isfinite(largest)) return std::numeric_limits<std::int16_t>::max();
    int exponent = 0;
    std::frexp(largest, &exponent);
    return static_cast<std::int16_t>(exponent);
}

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

Reader::Reader(std::vector<std::filesystem::path> files, int threads, std::vector<FileStamp> stamps)
    : files_(std::move(files)), descriptors_(files_.size(), -1), stamps_(std::move(stamps)), workers_(threads) {
    if (stamps_.empty()) stamps_.resize(files_.size());
}

Reader::~Reader() {
    for (const int descriptor : descriptors_) {
        if (descriptor >= 0) ::close(descriptor);
    }
}

void Reader::read(std::span<const ReadJob> jobs) {
    const std::lock_guard lock(read_mutex_);
    read_missing_scales(jobs);
    std::vector<ReadJob> pieces;
    for (const ReadJob& job : jobs) {
        const Weight& weight = *job.weight;
        const std::int64_t rows = std::max<std::int64_t>(1, piece_bytes / weight.row_bytes());
        const std::int64_t out_row = weight.cols * size_of(memory_dtype(weight.dtype));
        for (std::int64_t row = job.rows.begin; row < job.rows.end; row += rows) {
            pieces.push_back({&weight,
                              {row, std::min(job.rows.end, row + rows)},
                              job.out + (row - job.rows.begin) * out_row,
                              job.repeated,
                              job.exponents != nullptr ? job.exponents + (row - job.rows.begin) : nullptr});
        }
    }
    workers_.for_each(static_cast<std::int64_t>(pieces.size()),
                      [&](std::int64_t i, int) { read_piece(pieces[static_cast<std::size_t>(i)]); });
    check_files_unchanged();
}

// Before any rows, so that threads only look at what is kept.
void Reader::read_missing_scales(std::span<const ReadJob> jobs) {
    std::map<std::string_view, const ScaleSource*> missing;
    for (const ReadJob& job : jobs) {
        if (!is_f8(job.weight->dtype)) continue;
        if (!job.weight->scales)
            throw Error(ExitCode::internal, fmt::format("tensor '{}' comes without its scales", job.weight->tensor));
        const ScaleSource& source = *job.weight->scales;
        if (!scales_.contains(source.tensor)) missing.emplace(source.tensor, &source);
    }
    if (missing.empty()) return;
    std::vector<const ScaleSource*> sources;
    for (const auto& [tensor, source] : missing) sources.push_back(source);
    std::vector<Scales> read(sources.size());
    workers_.for_each(std::ssize(sources), [&](std::int64_t i, int) {
        read[static_cast<std::size_t>(i)] = read_scales(*sources[static_cast<std::size_t>(i)]);
    });
    for (std::size_t i = 0; i < sources.size(); ++i) scales_.emplace(sources[i]->tensor, std::move(read[i]));
}

Reader::Scales Reader::read_scales(const ScaleSource& source) {
    std::vector<std::byte> stored(static_cast<std::size_t>(source.bytes()));
    read_bytes(source.at, source.tensor, stored);
    Scales scales;
    scales.values.reserve(static_cast<std::size_t>(source.rows * source.cols));
    for (std::int64_t i = 0; i < source.rows * source.cols; ++i) {
        const float scale = scale_at(stored.data() + i * size_of(source.dtype), source.dtype);
        if (!std::isfinite(scale) || scale <= 0.0F) {
            throw Error(ExitCode::input,
                        fmt::format("{}: tensor {}: scale {} is {}, but has to be positive and finite; the checkpoint "
                                    "is damaged",
                                    files_[static_cast<std::size_t>(source.at.file)].string(), in_quotes(source.tensor),
                                    i, scale));
        }
        scales.values.push_back(scale);
    }
    for (std::int64_t row = 0; row < source.rows; ++row) {
        const std::byte* of_row = stored.data() + row * source.row_bytes();
        scales.row_crcs.push_back(crc32c(0, of_row, static_cast<std::size_t>(source.row_bytes())));
    }
    bytes_read_ += source.bytes();
    return scales;
}

void Reader::read_piece(const ReadJob& piece) {
    const Weight& weight = *piece.weight;
    const std::int64_t bytes = piece.rows.size() * weight.row_bytes();
    std::vector<std::byte> narrow(is_f8(weight.dtype) ? static_cast<std::size_t>(bytes) : 0);
    std::byte* stored = narrow.empty() ? piece.out : narrow.data();
    read_weight(weight, piece.rows, stored);
    if (!narrow.empty()) check_finite(weight, piece.rows, weight.dtype, stored);
    bytes_read_ += bytes;
    count_rows(piece, stored);
    if (!narrow.empty()) widen_f8(weight, piece.rows, scales_of(weight).values.data(), stored, piece.out);
    look_at_rows(piece);  // a scale of f8 may be too large
}

// Finds the exponents of the rows as they lie in memory, and with them what is not finite.
void Reader::look_at_rows(const ReadJob& piece) const {
    const Weight& weight = *piece.weight;
    const DType dtype = memory_dtype(weight.dtype);
    const std::byte* row = piece.out;
    std::int16_t largest = exponent_of_zero;
    for (std::int64_t i = 0; i < piece.rows.size(); ++i, row += weight.cols * size_of(dtype)) {
        const std::int16_t exponent = exponent_of(dtype, row, weight.cols);
        largest = std::max(largest, exponent);
        if (piece.exponents != nullptr) piece.exponents[i] = exponent;
    }
    if (largest > std::numeric_limits<double>::max_exponent) check_finite(weight, piece.rows, dtype, piece.out);
}

void Reader::count_rows(const ReadJob& piece, const std::byte* stored) {
    const Weight& weight = *piece.weight;
    std::vector<std::uint64_t> digests;
    for (std::int64_t row = piece.rows.begin; row < piece.rows.end; ++row, stored += weight.row_bytes())
        digests.push_back(digest_of_row(weight, weight.first_row + row, stored));
    auto at = static_cast<std::size_t>(weight.first_row + piece.rows.begin);
    const std::lock_guard lock(rows_mutex_);
    ReadRows& rows = rows_[weight.tensor];
    if (rows.read.size() < at + digests.size()) {
        rows.digests.resize(at + digests.size());
        rows.read.resize(at + digests.size());
        rows.counted.resize(at + digests.size());
    }
    for (const std::uint64_t digest : digests) {
        if (rows.read[at] && rows.digests[at] != digest)
            throw Error(
                ExitCode::input,
                fmt::format("tensor {}: row {} was read twice and differed; the checkpoint is being written to, "
                            "or storage is at fault",
                            in_quotes(weight.tensor), at));
        rows.digests[at] = digest;
        rows.read[at] = true;
        if (!piece.repeated && !rows.counted[at]) {
            rows.counted[at] = true;
            digest_ += digest;
        }
        ++at;
    }
}

// With the row of scales that begins with it.
std::uint64_t Reader::digest_of_row(const Weight& weight, std::int64_t of_tensor, const std::byte* stored) const {
    std::uint64_t digest = digest_term(digest_key(weight.tensor), of_tensor,
                                       crc32c(0, stored, static_cast<std::size_t>(weight.row_bytes())));
    if (!weight.scales || of_tensor % weight.scales->block_rows != 0) return digest;
    const std::int64_t of_scales = of_tensor / weight.scales->block_rows;
    return digest + digest_term(digest_key(weight.scales->tensor), of_scales,
                                scales_of(weight).row_crcs[static_cast<std::size_t>(of_scales)]);
}

std::uint64_t Reader::digest_of(const Weight& weight, Range rows) const {
    const std::lock_guard lock(rows_mutex_);
    const auto found = rows_.find(weight.tensor);
    std::uint64_t sum = 0;
    for (std::int64_t row = weight.first_row + rows.begin; row < weight.first_row + rows.end; ++row) {
        const auto at = static_cast<std::size_t>(row);
        if (found == rows_.end() || at >= found->second.read.size() || !found->second.read[at])
            throw Error(ExitCode::internal, fmt::format("row {} of tensor {} was not read", row, weight.tensor));
        sum += found->second.digests[at];
    }
    return sum;
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

void Reader::read_weight(const Weight& weight, Range rows, std::byte* out) {
    if (const auto* source = std::get_if<SyntheticSource>(&weight.source)) {
        generate(*source, weight.dtype, rows.begin * weight.cols, rows.end * weight.cols, out);
        return;
    }
    FileSource at = std::get<FileSource>(weight.source);
    at.offset += rows.begin * weight.row_bytes();
    read_bytes(at, weight.tensor, {out, static_cast<std::size_t>(rows.size() * weight.row_bytes())});
}

void Reader::read_bytes(FileSource at, const std::string& tensor, std::span<std::byte> out) {
    const int descriptor = open_file(at.file);
    while (!out.empty()) {
        const ::ssize_t got = ::pread(descriptor, out.data(), out.size(), at.offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            throw Error(ExitCode::input,
                        fmt::format("{}: tensor '{}': {} bytes at offset {} could not be read: {}",
                                    files_[static_cast<std::size_t>(at.file)].string(), tensor, out.size(), at.offset,
                                    got == 0 ? "the file ends before them; it was cut or changed while it was read"
                                             : std::strerror(errno)));
        }
        at.offset += got;
        out = out.subspan(static_cast<std::size_t>(got));
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
        FileStamp& stamp = stamps_[static_cast<std::size_t>(file)];
        if (stamp == FileStamp()) stamp = stamp_of(descriptor, path);
        check_unchanged(descriptor, stamp, path);
    }
    return descriptor;
}

// What lies in memory was read while the files were as their headers said.
void Reader::check_files_unchanged() const {
    for (std::size_t file = 0; file < files_.size(); ++file) {
        if (descriptors_[file] >= 0) check_unchanged(descriptors_[file], stamps_[file], files_[file].string());
    }
}

}  // namespace geom
