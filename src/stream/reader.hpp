// Weights from storage (or the generator) into host memory: read once, in large pieces, several at a time, and looked
// at once: every element is checked to be finite and every byte enters the digest. The scales of f8 tensors are read
// with the first rows of theirs, and kept.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/input_file.hpp"
#include "checkpoint/weight.hpp"
#include "core/range.hpp"
#include "kernels/workers.hpp"

namespace geom {

/// Rows of a weight that go to `out`, in memory_dtype().
struct ReadJob {
    const Weight* weight = nullptr;
    Range rows;
    std::byte* out = nullptr;
    bool repeated = false;              ///< another reader reads them as well, and counts them in its digest
    std::int16_t* exponents = nullptr;  ///< of each row: see exponent_of; null: nobody wants to know
};

class Reader {
public:
    /// Bytes a piece has at most: large enough for parallel file systems, small enough to share among threads.
    static constexpr std::int64_t piece_bytes = std::int64_t{8} << 20;

    /// `threads` read at a time. `files` are Checkpoint::files(), `stamps` Checkpoint::stamps(); without them a file
    /// counts as it is when it is opened.
    Reader(std::vector<std::filesystem::path> files, int threads, std::vector<FileStamp> stamps = {});
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    /// How many threads should read `files` for a rank of `threads` threads: requests to storage are kept in flight
    /// whatever the cores; without files the generator works, on the cores there are.
    static int threads_for(const std::vector<std::filesystem::path>& files, int threads) noexcept {
        return files.empty() ? threads : std::max(threads, 4);
    }

    /// Fills every job; callers wait for one another. Throws Error(input) when a file is shorter than its header
    /// promised or cannot be read, was replaced or written to since that header was read, or a scale is not positive
    /// and finite, Error(numerics) for a NaN or an infinity, all with file, tensor and place.
    void read(std::span<const ReadJob> jobs);

    std::int64_t bytes_read() const noexcept { return bytes_read_; }  ///< of weights and scales

    /// A sum, modulo 2^64, of one number for each row read, made of the tensor's name, the row and its CRC32C; a row
    /// that is read again, in a later pass, counts once. A row of scales counts with the first of the rows that it is
    /// for. Ranks add theirs up (a row has one reader, but for those it reads as `repeated`); the sum does not depend
    /// on who read what, when, or in which pieces.
    std::uint64_t digest() const noexcept { return digest_; }

    /// The same sum over these rows of `weight`, whether they were `repeated` or not. Throws Error(internal) when they
    /// were not all read.
    std::uint64_t digest_of(const Weight& weight, Range rows) const;

private:
    struct Scales {
        std::vector<float> values;
        std::vector<std::uint32_t> row_crcs;  // of their stored bytes
    };
    struct ReadRows {  // of a tensor
        std::vector<std::uint64_t> digests;
        std::vector<bool> read, counted;
    };
    void read_missing_scales(std::span<const ReadJob> jobs);
    Scales read_scales(const ScaleSource& source);
    const Scales& scales_of(const Weight& weight) const { return scales_.at(weight.scales->tensor); }
    void read_piece(const ReadJob& piece);
    void read_weight(const Weight& weight, Range rows, std::byte* out);
    void read_bytes(FileSource at, const std::string& tensor, std::span<std::byte> out);
    void count_rows(const ReadJob& piece, const std::byte* stored);
    std::uint64_t digest_of_row(const Weight& weight, std::int64_t of_tensor, const std::byte* stored) const;
    void check_finite(const Weight& weight, Range rows, DType dtype, const std::byte* data) const;
    void look_at_rows(const ReadJob& piece) const;
    int open_file(std::int32_t file);
    void check_files_unchanged() const;

    std::vector<std::filesystem::path> files_;
    std::vector<int> descriptors_;
    std::mutex read_mutex_, open_mutex_;
    std::vector<FileStamp> stamps_;
    mutable std::mutex rows_mutex_;
    std::map<std::string, ReadRows> rows_;  // by tensor
    std::map<std::string, Scales> scales_;  // by the names of their own tensors
    std::atomic<std::int64_t> bytes_read_{0};
    std::atomic<std::uint64_t> digest_{0};
    Workers workers_;
};

/// The smallest e with all magnitudes below 2^e; `exponent_of_zero` when there are none but zeros, something above
/// 1024 for NaN and infinity. Not of f8.
inline constexpr std::int16_t exponent_of_zero = std::numeric_limits<std::int16_t>::min();
std::int16_t exponent_of(DType dtype, const std::byte* data, std::int64_t elements);

/// Index of the first element that is NaN or infinite; -1 when all are finite.
std::int64_t first_not_finite(DType dtype, const std::byte* data, std::int64_t elements);

}  // namespace geom
