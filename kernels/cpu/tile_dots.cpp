// One key/value group: an (L hd) x (L hd) symmetric product for K and one for each Q, tile by tile of two layers, of
// which only sum_ab K_ab Q_ab is kept. A task is a rectangle of left_layers x right_layers tiles on or above the
// diagonal; a thread takes whole tasks:
//
//        l' -> | 0 1 2 | 3 4 5 | 6 7 8 | ...      right_layers: prepared (transposed or widened) once a task
//     l   0..7 |   T   |   T   |   T   | ...      left_layers: how often a prepared right-hand chunk is used
//     |  8..15 |       |       |       | ...
//
// Inside a task the hidden dimension goes in chunks, so that the prepared right-hand blocks stay in the second cache
// level. Tiles of K are computed first and kept, then those of each query head, each dotted with K's. Shapes of tasks
// depend on hd alone: the same bits for any number of threads.
#include "kernels/cpu/tile_dots.hpp"

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "core/error.hpp"
#include "core/range.hpp"
#include "kernels/cpu/tile_products.hpp"

namespace geom::cpu {

namespace {

std::int64_t left_layers(std::int64_t head_dim) { return std::max<std::int64_t>(1, 1024 / head_dim); }
std::int64_t right_layers(std::int64_t head_dim) { return std::max<std::int64_t>(1, 384 / head_dim); }

struct Task {
    Range left, right;  // layers
};

std::vector<Task> tasks_of(std::int64_t layers, std::int64_t head_dim) {
    std::vector<Task> tasks;
    for (std::int64_t r = 0; r < layers; r += right_layers(head_dim)) {
        const Range right{r, std::min(layers, r + right_layers(head_dim))};
        for (std::int64_t l = 0; l < right.end; l += left_layers(head_dim)) {
            tasks.push_back({{l, std::min(right.end, l + left_layers(head_dim))}, right});
        }
    }
    return tasks;
}

// One thread's scratch: the tiles of K and those of a query head, for one task.
template <class Products>
class TaskRunner {
public:
    using Element = typename Products::Element;

    explicit TaskRunner(const HeadBlockFormat& format)
        : format_(format),
          tile_elements_(Products::padded_rows(format.head_dim) * Products::padded_rows(format.head_dim)),
          products_(format, right_layers(format.head_dim)),
          tiles_(allocate_host(tiles_bytes(format))) {}

    static std::int64_t tiles_bytes(const HeadBlockFormat& format) {
        const std::int64_t side = Products::padded_rows(format.head_dim);
        return 2 * left_layers(format.head_dim) * right_layers(format.head_dim) * side * side *
               static_cast<std::int64_t>(sizeof(Element));
    }

    void run(const Task& task, const KvGroupBlocks& group, std::span<double> out) {
        Element* k_tiles = tiles_.as<Element>();
        Element* q_tiles = k_tiles + tiles_.size() / 2 / static_cast<std::int64_t>(sizeof(Element));
        multiply(task, group.k, k_tiles, tile_elements_, [](std::int64_t, std::int64_t, std::int64_t) {});
        // With a single chunk a tile of Q is finished and dotted before the next begins: one place serves all.
        const std::int64_t q_step = format_.hidden <= Products::chunk_cols ? 0 : tile_elements_;
        for (std::int64_t head = 0; head < group.heads; ++head) {
            double* gram = out.data() + head * group.layers * group.layers;
            multiply(task, group.q + head * group.layers * format_.bytes, q_tiles, q_step,
                     [&](std::int64_t l, std::int64_t r, std::int64_t tile) {
                         gram[l * group.layers + r] = gram[r * group.layers + l] =
                             Products::dot(k_tiles + tile * tile_elements_, q_tiles + tile * q_step, tile_elements_);
                     });
        }
    }

private:
    // f(left layer, right layer, index of the tile) for the task's tiles on or above the diagonal.
    template <class F>
    static void for_each_tile(const Task& task, F&& f) {
        for (std::int64_t l = task.left.begin; l < task.left.end; ++l) {
            for (std::int64_t r = std::max(l, task.right.begin); r < task.right.end; ++r) {
                f(l, r, (l - task.left.begin) * task.right.size() + r - task.right.begin);
            }
        }
    }

    // Products of `blocks`, tiles `step` elements apart; after each, finished(left layer, right layer, tile).
    template <class F>
    void multiply(const Task& task, const std::byte* blocks, Element* tiles, std::int64_t step, F&& finished) {
        for (std::int64_t col = 0; col < format_.hidden; col += Products::chunk_cols) {
            const std::int64_t col_end = std::min(format_.hidden, col + Products::chunk_cols);
            for (std::int64_t r = task.right.begin; r < task.right.end; ++r) {
                products_.prepare_right(r - task.right.begin, blocks + r * format_.bytes, col, col_end);
            }
            for_each_tile(task, [&](std::int64_t l, std::int64_t r, std::int64_t tile) {
                products_.accumulate(blocks + l * format_.bytes, r - task.right.begin, col == 0, tiles + tile * step);
                if (col_end == format_.hidden) finished(l, r, tile);
            });
        }
    }

    HeadBlockFormat format_;
    std::int64_t tile_elements_;
    Products products_;
    Buffer tiles_;
};

template <class Products>
void run_tasks(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out, Workers& workers) {
    const std::vector<Task> tasks = tasks_of(group.layers, format.head_dim);
    // One job a thread, so that scratch and the thread's tile unit are set up once; jobs draw tasks from one counter.
    std::atomic<std::int64_t> next{0};
    workers.for_each(workers.size(), [&](std::int64_t, int) {
        std::optional<TaskRunner<Products>> runner;
        for (;;) {
            // The widest tasks are the last ones: they go first, so that no thread is left alone with one.
            const std::int64_t taken = static_cast<std::int64_t>(tasks.size()) - 1 - next.fetch_add(1);
            if (taken < 0) return;
            if (!runner) runner.emplace(format);
            runner->run(tasks[static_cast<std::size_t>(taken)], group, out);
        }
    });
}

// f.template operator()<Products>() for the class that handles a format.
template <class F>
auto with_products(const HeadBlockFormat& format, F&& f) {
    if (format.path == "amx-bf16") return f.template operator()<AmxProducts>();
    if (format.path == "sgemm-bf16") return f.template operator()<Bf16Products>();
    if (format.path == "sgemm") return f.template operator()<F32Products>();
    if (format.path == "dgemm") return f.template operator()<F64Products>();
    throw Error(ExitCode::internal, "unknown product path '" + format.path + "'");
}

}  // namespace

HeadBlockFormat head_block_format(DType dtype, std::int64_t head_dim, std::int64_t hidden, bool amx) {
    HeadBlockFormat format{head_dim, hidden, dtype, 0, {}};
    switch (dtype) {
        case DType::bf16:
            format.path = amx ? "amx-bf16" : "sgemm-bf16";
            break;
        case DType::f64:
            format.path = "dgemm";
            break;
        default:
            format.dtype = DType::f32;
            format.path = "sgemm";
    }
    format.bytes = with_products(format, [&]<class Products>() { return Products::block_bytes(head_dim, hidden); });
    return format;
}

void pack_head_blocks(std::span<const MatrixRef> blocks, const HeadBlockFormat& format, std::span<std::byte* const> out,
                      Workers& workers) {
    with_products(format, [&]<class Products>() {
        workers.for_each(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t i, int) {
            const auto at = static_cast<std::size_t>(i);
            Products::pack(blocks[at], out[at]);
        });
    });
}

void tile_dots(const KvGroupBlocks& group, const HeadBlockFormat& format, std::span<double> out, Workers& workers) {
    with_products(format, [&]<class Products>() { run_tasks<Products>(group, format, out, workers); });
}

std::int64_t tile_dots_scratch(const HeadBlockFormat& format) {
    return with_products(format, [&]<class Products>() {
        return TaskRunner<Products>::tiles_bytes(format) +
               Products::scratch_bytes(format, right_layers(format.head_dim));
    });
}

}  // namespace geom::cpu
