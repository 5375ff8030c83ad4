// Two key/value groups, or one with itself: an (L hd) x (L hd) product for K and one for each pair of query heads, tile
// by tile of two layers, of which only sum_ab K_ab Q_ab is kept. A task is a rectangle of left_layers x right_layers
// tiles, and all pairs of heads; a thread takes whole tasks:
//
//        l' -> | 0 1 2 | 3 4 5 | 6 7 8 | ...      right_layers: prepared (transposed or widened) once for the task
//     l   0..7 |   T   |   T   |   T   | ...      left_layers: how often a prepared right-hand chunk is used; fewer
//              |       |       |       |          where threads would be idle
//     |  8..15 |       |       |       | ...
//
// A head with itself needs the tiles on and above the diagonal alone; where all pairs are such (gram), rectangles below
// it are no tasks.
//
// Inside a task the hidden dimension goes in chunks, so that the prepared right-hand blocks stay in the second cache
// level. Tiles of K are computed first and kept, then those of each pair of heads, each dotted with K's. A tile's bits
// depend on its two blocks, hd and D: they are the same for any number of threads, layers and heads beside it.
//
// Flops of a task of G x G pairs: 2 hd^2 D (1 + G^2) a tile, so that K's share is 1 / (1 + G^2). Bytes, of bf16 at
// hd = 128 and D = 1024: a tile takes 34 MFLOP, 75 us at 450 GFLOP/s a core; a left-hand block (256 KiB) comes from the
// third cache level or memory once for three tiles, 1.2 GB/s a core; the right-hand ones once for 8 tiles and, when D
// is one chunk, once for all left-hand heads, as pairs of one right-hand head follow each other; K's tile (64 KiB) once
// a tile, 0.9 GB/s.
#include "kernels/cpu/tile_dots.hpp"

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "core/range.hpp"
#include "kernels/cpu/stored_rows.hpp"
#include "kernels/cpu/tile_products.hpp"

namespace geom::cpu {

namespace {

std::int64_t left_layers(std::int64_t head_dim) { return std::max<std::int64_t>(1, 1024 / head_dim); }
std::int64_t right_layers(std::int64_t head_dim) { return std::max<std::int64_t>(1, 384 / head_dim); }

/// A query head of the left group and one of the right, and where their numbers go: left layers x right layers.
struct HeadPair {
    std::int64_t left = 0, right = 0;
    bool of_itself = false;  ///< one head: l <= l' is computed, and mirrored
    double* out = nullptr;
};

struct Job {
    const KvGroupBlocks& left;
    const KvGroupBlocks& right;
    const HeadBlockFormat& format;
    std::vector<HeadPair> pairs;  // of one right-hand head after the other

    bool upper_half() const {
        return std::all_of(pairs.begin(), pairs.end(), [](const HeadPair& pair) { return pair.of_itself; });
    }
};

struct Task {
    Range left, right;  // layers
};

std::vector<Task> tasks_of(const Job& job, std::int64_t high) {
    const std::int64_t wide = right_layers(job.format.head_dim);
    std::vector<Task> tasks;
    for (std::int64_t r = 0; r < job.right.layers; r += wide) {
        const Range right{r, std::min(job.right.layers, r + wide)};
        const std::int64_t bottom = job.upper_half() ? right.end : job.left.layers;
        for (std::int64_t l = 0; l < bottom; l += high) tasks.push_back({{l, std::min(bottom, l + high)}, right});
    }
    return tasks;
}

// Of fewer left layers where there would be less than a few tasks for each thread.
std::vector<Task> tasks_for(const Job& job, int threads) {
    std::int64_t high = left_layers(job.format.head_dim);
    std::vector<Task> tasks = tasks_of(job, high);
    while (high > 1 && std::ssize(tasks) < std::int64_t{4} * threads) tasks = tasks_of(job, high /= 2);
    return tasks;
}

// One thread's scratch: the tiles of K and those of a pair of query heads, for one task.
template <class Products>
class TaskRunner {
public:
    using Element = typename Products::Element;

    explicit TaskRunner(const Job& job)
        : job_(job),
          format_(job.format),
          tile_elements_(Products::padded_rows(format_.head_dim) * Products::padded_rows(format_.head_dim)),
          products_(format_, right_layers(format_.head_dim)),
          tiles_(allocate_host(tiles_bytes(format_))) {}

    static std::int64_t tiles_bytes(const HeadBlockFormat& format) {
        const std::int64_t side = Products::padded_rows(format.head_dim);
        return 2 * left_layers(format.head_dim) * right_layers(format.head_dim) * side * side *
               static_cast<std::int64_t>(sizeof(Element));
    }

    void run(const Task& task) {
        Element* k_tiles = tiles_.as<Element>();
        Element* q_tiles = k_tiles + tiles_.size() / 2 / static_cast<std::int64_t>(sizeof(Element));
        prepared_ = nullptr;
        multiply({task, job_.left.k, job_.right.k, job_.upper_half()}, {k_tiles, tile_elements_},
                 [](std::int64_t, std::int64_t, std::int64_t) {});
        // With a single chunk a tile of Q is finished and dotted before the next begins: one place serves all.
        const std::int64_t q_step = one_chunk() ? 0 : tile_elements_;
        for (const HeadPair& pair : job_.pairs) {
            const auto dotted = [&](std::int64_t l, std::int64_t r, std::int64_t tile) {
                const double dot =
                    products_.dot(k_tiles + tile * tile_elements_, q_tiles + tile * q_step, tile_elements_);
                pair.out[l * job_.right.layers + r] = dot;
                if (pair.of_itself) pair.out[r * job_.right.layers + l] = dot;
            };
            multiply({task, job_.left.q + pair.left * job_.left.layers * format_.bytes,
                      job_.right.q + pair.right * job_.right.layers * format_.bytes, pair.of_itself},
                     {q_tiles, q_step}, dotted);
        }
    }

private:
    /// Blocks of all layers, and the rectangle of tiles that is wanted of their products.
    struct Factors {
        const Task& task;
        const std::byte* left;
        const std::byte* right;
        bool upper_half;
    };
    struct Tiles {
        Element* first;
        std::int64_t step;  ///< elements from one to the next
    };

    bool one_chunk() const { return format_.hidden <= Products::chunk_cols; }

    // After each tile: finished(left layer, right layer, index of the tile).
    template <class F>
    void multiply(const Factors& factors, const Tiles& tiles, F&& finished) {
        for (std::int64_t col = 0; col < format_.hidden; col += Products::chunk_cols) {
            const Range columns{col, std::min(format_.hidden, col + Products::chunk_cols)};
            prepare_right(factors, columns);
            for (std::int64_t l = factors.task.left.begin; l < factors.task.left.end; ++l) {
                multiply_layer(factors, l, columns, tiles, finished);
            }
        }
    }

    // Left-hand heads that follow each other share the right-hand one.
    void prepare_right(const Factors& factors, Range columns) {
        if (one_chunk() && prepared_ == factors.right) return;
        const Range layers = factors.task.right;
        for (std::int64_t r = layers.begin; r < layers.end; ++r) {
            products_.prepare_right(r - layers.begin, factors.right + r * format_.bytes, columns);
        }
        prepared_ = factors.right;
    }

    template <class F>
    void multiply_layer(const Factors& factors, std::int64_t l, Range columns, const Tiles& tiles, F&& finished) {
        const Range right = factors.task.right;
        const std::int64_t begin = factors.upper_half ? std::max(l, right.begin) : right.begin;
        if (begin >= right.end) return;
        products_.prepare_left(factors.left + l * format_.bytes, columns);
        for (std::int64_t r = begin; r < right.end; ++r) {
            const std::int64_t tile = (l - factors.task.left.begin) * right.size() + r - right.begin;
            products_.accumulate(r - right.begin, columns.begin == 0, tiles.first + tile * tiles.step);
            if (columns.end == format_.hidden) finished(l, r, tile);
        }
    }

    const Job& job_;
    const HeadBlockFormat& format_;
    std::int64_t tile_elements_;
    Products products_;
    Buffer tiles_;
    const std::byte* prepared_ = nullptr;  ///< right-hand blocks that are
};

template <class Products>
void run_tasks(const Job& job, Workers& workers) {
    const std::vector<Task> tasks = tasks_for(job, workers.size());
    // One job a thread, so that scratch and the thread's tile unit are set up once; jobs draw tasks from one counter.
    std::atomic<std::int64_t> next{0};
    workers.for_each(workers.size(), [&](std::int64_t, int) {
        std::optional<TaskRunner<Products>> runner;
        for (;;) {
            // The widest tasks are the last ones: they go first, so that no thread is left alone with one.
            const std::int64_t taken = static_cast<std::int64_t>(tasks.size()) - 1 - next.fetch_add(1);
            if (taken < 0) return;
            if (!runner) runner.emplace(job);
            runner->run(tasks[static_cast<std::size_t>(taken)]);
        }
    });
}

// f.template operator()<Products>() for the class that handles a format.
template <class F>
auto with_products(const HeadBlockFormat& format, F&& f) {
    if (format.path == "amx-bf16") return f.template operator()<AmxProducts>();
    if (panels::kernels_of(format.path) != nullptr) return f.template operator()<PanelProducts>();
    if (format.path == "sgemm-bf16") return f.template operator()<Bf16Products>();
    if (format.path == "sgemm") return f.template operator()<F32Products>();
    if (format.path == "dgemm") return f.template operator()<F64Products>();
    throw Error(ExitCode::internal, "unknown product path '" + format.path + "'");
}

void run(const Job& job, Workers& workers) {
    with_products(job.format, [&]<class Products>() { run_tasks<Products>(job, workers); });
}

std::string path_of(DType kept, Isa isa) {
    if (kept == DType::f64) return "dgemm";
    if (kept == DType::bf16 && isa >= Isa::avx512_bf16) return std::string(name_of(isa));
    if (isa >= Isa::avx512) return "avx512-f32";
    if (isa >= Isa::avx2) return "avx2-f32";
    if (kept == DType::bf16 && isa == Isa::neon_bf16) return "neon-bf16";
    if (isa >= Isa::neon) return "neon-f32";
    return kept == DType::bf16 ? "sgemm-bf16" : "sgemm";
}

}  // namespace

HeadBlockFormat head_block_format(DType dtype, std::int64_t head_dim, std::int64_t hidden, Isa isa) {
    const DType kept = dtype == DType::bf16 || dtype == DType::f64 ? dtype : DType::f32;
    HeadBlockFormat format{head_dim, hidden, kept, 0, path_of(kept, isa)};
    format.bytes = with_products(format, [&]<class Products>() { return Products::block_bytes(format); });
    return format;
}

void pack_head_blocks(const BlocksToPack& what, const HeadBlockFormat& format, std::span<std::byte* const> out,
                      Workers& workers) {
    std::vector<double> columns(what.columns.data != nullptr ? static_cast<std::size_t>(format.hidden) : 0);
    if (!columns.empty()) widen(what.columns, {0, format.hidden}, columns.data());
    with_products(format, [&]<class Products>() {
        workers.for_each(std::ssize(what.blocks), [&](std::int64_t i, int) {
            const auto at = static_cast<std::size_t>(i);
            const MatrixRef& block = what.blocks[at];
            if (block.exponent == 0 && columns.empty()) return Products::pack(block, format, out[at]);
            const std::vector<std::byte> scaled = rescaled(block, columns, format.dtype);
            Products::pack({scaled.data(), format.dtype, block.rows, block.cols}, format, out[at]);
        });
    });
}

void tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out, Workers& workers) {
    Job job{group, group, format, {}};
    for (std::int64_t head = 0; head < group.heads; ++head) {
        job.pairs.push_back({head, head, true, out.data() + head * group.layers * group.layers});
    }
    run(job, workers);
}

void cross_dots(const KvGroupBlocks& left, const KvGroupBlocks& right, std::int64_t place,
                const HeadBlockFormat& format, std::span<double> out, Workers& workers) {
    Job job{left, right, format, {}};
    for (std::int64_t j = 0; j < right.heads; ++j) {
        for (std::int64_t i = 0; i < left.heads; ++i) {
            if (place >= 0 && j < place + i) continue;
            double* numbers = out.data() + (i * right.heads + j) * left.layers * right.layers;
            job.pairs.push_back({i, j, place >= 0 && j == place + i, numbers});
        }
    }
    run(job, workers);
}

std::int64_t tile_dots_scratch(const HeadBlockFormat& format) {
    return with_products(format, [&]<class Products>() {
        return TaskRunner<Products>::tiles_bytes(format) +
               Products::scratch_bytes(format, right_layers(format.head_dim));
    });
}

}  // namespace geom::cpu
