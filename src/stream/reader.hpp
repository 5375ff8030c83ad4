// Weights from storage (or the generator) into host memory: read once, in large pieces, several at a time, and looked
// at once: every element is checked to be finite and every byte enters the digest.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/weight.hpp"
#include "core/range.hpp"
#include "kernels/workers.hpp"

namespace geom {

/// Rows of a weight that go to `out`, in memory_dtype().
struct ReadJob {
    const Weight* weight = nullptr;
    Range rows;
    std::byte* out = nullptr;
};

class Reader {
public:
    /// Bytes a piece has at most: large enough for parallel file systems, small enough to share among threads.
    static constexpr std::int64_t piece_bytes = std::int64_t{8} << 20;

    /// `threads` read at a time. `files` are Checkpoint::files().
    Reader(std::vector<std::filesystem::path> files, int threads);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    /// How many threads should read `files` for a rank of `threads` threads: requests to storage are kept in flight
    /// whatever the cores; without files the generator works, on the cores there are.
    static int threads_for(const std::vector<std::filesystem::path>& files, int threads) noexcept {
        return files.empty() ? threads : std::max(threads, 4);
    }

    /// Fills every job. Throws Error(input) when a file is shorter than its header promised or cannot be read,
    /// Error(numerics) for a NaN or an infinity, both with file, tensor and place.
    void read(std::span<const ReadJob> jobs);

    std::int64_t bytes_read() const noexcept { return bytes_read_; }

    /// A sum, modulo 2^64, of one number for each row read, made of the tensor's name, the row and its CRC32C; a row
    /// that is read again, in a later pass, counts once. Ranks add theirs up (a row has one reader); the sum does not
    /// depend on who read what, when, or in which pieces.
    std::uint64_t digest() const noexcept { return digest_; }

private:
    struct Piece {
        const Weight* weight = nullptr;
        Range rows;
        std::byte* out = nullptr;
    };
    void read_piece(const Piece& piece);
    void read_bytes(const Weight& weight, Range rows, std::byte* out);
    void check_finite(const Weight& weight, Range rows, DType dtype, const std::byte* data) const;
    /// Which of the rows are read for the first time; from now on none is.
    std::vector<bool> mark_read(const Weight& weight, Range rows);
    int open_file(std::int32_t file);

    std::vector<std::filesystem::path> files_;
    std::vector<int> descriptors_;
    std::mutex open_mutex_;
    std::mutex seen_mutex_;
    std::map<std::string, std::vector<bool>> seen_;  // tensor -> rows that are in the digest
    std::atomic<std::int64_t> bytes_read_{0};
    std::atomic<std::uint64_t> digest_{0};
    Workers workers_;
};

/// Index of the first element that is NaN or infinite; -1 when all are finite.
std::int64_t first_not_finite(DType dtype, const std::byte* data, std::int64_t elements);

}  // namespace geom
