#include "app/bench_parts.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "core/error.hpp"
#include "measures/heads.hpp"
#include "stream/layer_stream.hpp"
#include "stream/reader.hpp"

namespace geom {

namespace {

template <class F>
double seconds_of(F&& f) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// --- the machine by itself -------------------------------------------------------------------------------------------

// Large products by a library: bf16 where the machine is fast at it, else f32. The best of the shapes counts.
class GemmPart : public BenchPart {
public:
    GemmPart(const ModelConfig& config, Backend& backend) {
        const std::int64_t large = backend.on_device() ? 8192 : 4096;
        const std::int64_t side = config.layers * config.head_dim;  // gram of a head as one product
        std::vector<GemmShape> shapes;
        for (const GemmShape& shape : {GemmShape{large, large, large}, GemmShape{large, large, config.hidden},
                                       GemmShape{side, side, config.hidden}}) {
            if (std::find(shapes.begin(), shapes.end(), shape) == shapes.end()) shapes.push_back(shape);
        }
        for (const GemmShape& shape : shapes) {
            gemms_.emplace_back(shape, backend.large_product(shape));
            gemms_.back().second.run();  // once for the library to settle
        }
    }

    void once(BenchTable& table) override {
        best_ = 0.0;
        for (const auto& [shape, gemm] : gemms_) {
            const double rate = shape.flops() * 1e-12 / seconds_of(gemm.run);
            best_ = std::max(best_, rate);
            table.add(fmt::format("gemm, {}, {} x {} x {}", gemm.name, shape.m, shape.n, shape.k), "TFLOP/s", rate);
        }
        table.add("gemm", "TFLOP/s", best_);
    }

    double best() const noexcept { return best_; }  ///< TFLOP/s, of the last time

private:
    std::vector<std::pair<GemmShape, Yardstick>> gemms_;
    double best_ = 0.0;
};

// Between two places of the backend's memory beyond any cache.
class CopyPart : public BenchPart {
public:
    explicit CopyPart(Backend& backend) : copy_(backend.large_copy(bytes)) { copy_.run(); }

    void once(BenchTable& table) override {
        table.add("copy, bytes read + written", "GB/s", 2e-9 * static_cast<double>(bytes) / seconds_of(copy_.run));
    }

private:
    static constexpr std::int64_t bytes = std::int64_t{512} << 20;

    Yardstick copy_;
};

// --- measures --------------------------------------------------------------------------------------------------------

// W_Q and W_K of one layer at a time, as a run has them; reading is not part of what is timed.
class LayerSource {
public:
    LayerSource(const Checkpoint& checkpoint, Backend& backend)
        : checkpoint_(checkpoint),
          backend_(backend),
          reader_(checkpoint.files(), backend.workers().size()),
          memory_(backend.input_buffer(checkpoint.weight(WeightFamily::q_proj, 0).bytes() +
                                       checkpoint.weight(WeightFamily::k_proj, 0).bytes())) {}

    /// Blocks of the heads of `layer`, valid until the next call.
    void read(std::int64_t layer) {
        const Weight q = checkpoint_.weight(WeightFamily::q_proj, layer),
                     k = checkpoint_.weight(WeightFamily::k_proj, layer);
        memory_->release();
        memory_->wait_sent();
        const std::vector<ReadJob> jobs{{&q, {0, q.rows}, memory_->host()},
                                        {&k, {0, k.rows}, memory_->host() + q.bytes()}};
        reader_.read(jobs);
        memory_->send(q.bytes() + k.bytes());
        memory_->receive();
        backend_.queue().wait();
        q_blocks = blocks(q, memory_->data());
        k_blocks = blocks(k, memory_->data() + q.bytes());
    }

    std::vector<MatrixRef> q_blocks, k_blocks;

private:
    std::vector<MatrixRef> blocks(const Weight& weight, const std::byte* data) const {
        const std::int64_t rows = checkpoint_.config().head_dim;
        std::vector<MatrixRef> list;
        for (std::int64_t row = 0; row < weight.rows; row += rows) {
            list.push_back({data + row * weight.row_bytes(), weight.dtype, rows, weight.cols});
        }
        return list;
    }

    const Checkpoint& checkpoint_;
    Backend& backend_;
    Reader reader_;
    std::unique_ptr<InputBuffer> memory_;
};

// tile_dots of every key/value group, on blocks that lie packed as after the exchange.
class GramPart : public BenchPart {
public:
    GramPart(const Checkpoint& checkpoint, LayerSource& source, Backend& backend, const GemmPart* gemm)
        : config_(checkpoint.config()),
          backend_(backend),
          gemm_(gemm),
          format_(backend.head_products().format(checkpoint.weight(WeightFamily::q_proj, 0).dtype, config_.head_dim,
                                                 config_.hidden)),
          blocks_(backend.allocate((config_.heads + config_.kv_heads) * config_.layers * format_.bytes)),
          gram_(static_cast<std::size_t>(heads_a_group() * config_.layers * config_.layers)) {
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
            source.read(layer);
            pack(source.k_blocks, layer, 0);
            pack(source.q_blocks, layer, config_.kv_heads);
        }
    }

    void once(BenchTable& table) override {
        const std::int64_t of_one = config_.layers * format_.bytes;
        const double seconds = seconds_of([&] {
            for (std::int64_t group = 0; group < config_.kv_heads; ++group) {
                const std::byte* q = blocks_.data() + (config_.kv_heads + group * heads_a_group()) * of_one;
                backend_.head_products().tile_dots(
                    {config_.layers, heads_a_group(), blocks_.data() + group * of_one, q}, format_, gram_);
            }
        });
        const double rate = flops() * 1e-12 / seconds;
        table.add("gram", "s", seconds);
        table.add(fmt::format("gram, {}, half the matrix", format_.path), "TFLOP/s", rate);
        if (gemm_ != nullptr) table.add("gram / gemm", "", rate / gemm_->best());
    }

private:
    std::int64_t heads_a_group() const { return config_.heads / config_.kv_heads; }

    // The tiles on and above the diagonal, as the plan counts them.
    double flops() const {
        const std::int64_t pairs = config_.layers * (config_.layers + 1) / 2;
        const std::int64_t products = (config_.heads + config_.kv_heads) * pairs;
        return static_cast<double>(products) * 2.0 *
               static_cast<double>(config_.head_dim * config_.head_dim * config_.hidden);
    }

    void pack(const std::vector<MatrixRef>& heads, std::int64_t layer, std::int64_t first) {
        std::vector<std::byte*> out;
        for (std::size_t h = 0; h < heads.size(); ++h) {
            out.push_back(blocks_.data() +
                          ((first + static_cast<std::int64_t>(h)) * config_.layers + layer) * format_.bytes);
        }
        backend_.head_products().pack(heads, format_, out);
    }

    const ModelConfig& config_;
    Backend& backend_;
    const GemmPart* gemm_;
    HeadBlockFormat format_;
    Buffer blocks_;
    std::vector<double> gram_;
};

class HeadsPart : public BenchPart {
public:
    HeadsPart(const Checkpoint& checkpoint, std::shared_ptr<LayerSource> source, Backend& backend)
        : layers_(checkpoint.config().layers), source_(std::move(source)), backend_(backend) {}

    void once(BenchTable& table) override {
        double seconds = 0.0;
        for (std::int64_t layer = 0; layer < layers_; ++layer) {
            source_->read(layer);
            seconds += seconds_of([&] {
                heads_of_layer(backend_.dense(), {layer, source_->q_blocks, source_->k_blocks},
                               MeasureSettings{}.top_k);
            });
        }
        table.add("heads", "s", seconds);
    }

private:
    std::int64_t layers_;
    std::shared_ptr<LayerSource> source_;
    Backend& backend_;
};

// --- loading ---------------------------------------------------------------------------------------------------------

// The same bytes of a checkpoint twice, from storage: by the stream of a run, and by a loop of pread.
class LoadPart : public BenchPart {
public:
    LoadPart(const Checkpoint& checkpoint, Backend& backend)
        : checkpoint_(checkpoint),
          backend_(backend),
          threads_(Reader::threads_for(checkpoint.files(), backend.workers().size())) {
        for (std::int64_t layer = 0; layer < checkpoint.config().layers; ++layer) {
            LayerRequest request{layer, {}};
            for (const WeightFamily family :
                 {WeightFamily::q_proj, WeightFamily::k_proj, WeightFamily::v_proj, WeightFamily::o_proj,
                  WeightFamily::gate_proj, WeightFamily::up_proj, WeightFamily::down_proj}) {
                if (!checkpoint.has(family, layer)) continue;
                const Weight weight = checkpoint.weight(family, layer);
                request.weights.push_back({family, {}});
                pieces_.push_back({std::get<FileSource>(weight.source), weight.bytes()});
                bytes_ += weight.bytes();
            }
            requests_.push_back(std::move(request));
        }
        std::sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) {
            return a.at.file != b.at.file ? a.at.file < b.at.file : a.at.offset < b.at.offset;
        });
    }

    void once(BenchTable& table) override {
        double stream = 0.0, plain = 0.0;
        const auto by_stream = [&] { stream = cold_seconds([this] { read_by_stream(); }); };
        const auto by_loop = [&] { plain = cold_seconds([this] { read_plainly(); }); };
        if (turn_++ % 2 == 0) {
            by_loop();
            by_stream();
        } else {
            by_stream();
            by_loop();
        }
        table.add("load, layer stream", "GB/s", 1e-9 * static_cast<double>(bytes_) / stream);
        table.add("load, plain pread loop", "GB/s", 1e-9 * static_cast<double>(bytes_) / plain);
        table.add("load, stream / loop", "", plain / stream);
    }

private:
    struct Piece {
        FileSource at;
        std::int64_t bytes = 0;
    };

    class File {
    public:
        explicit File(const std::filesystem::path& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
            if (descriptor_ < 0) throw Error(ExitCode::input, fmt::format("{}: cannot be opened", path.string()));
        }
        ~File() { ::close(descriptor_); }
        File(const File&) = delete;
        File& operator=(const File&) = delete;
        int descriptor() const noexcept { return descriptor_; }

    private:
        int descriptor_;
    };

    // f, after the kernel has been told to forget the files; dirty pages would stay.
    template <class F>
    double cold_seconds(F&& f) const {
        for (const std::filesystem::path& path : checkpoint_.files()) {
            const File file(path);
            ::fsync(file.descriptor());
            ::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_DONTNEED);
        }
        return seconds_of(f);
    }

    void read_by_stream() const {
        Reader reader(checkpoint_.files(), threads_);
        LayerStream stream({{&checkpoint_, &reader}}, backend_, requests_, 2, {});
        while (stream.next() != nullptr) {
        }
    }

    void read_plainly() const {
        std::vector<std::byte> buffer(std::size_t{8} << 20);
        std::unique_ptr<File> file;
        std::int32_t opened = -1;
        for (const Piece& piece : pieces_) {
            if (piece.at.file != opened)
                file = std::make_unique<File>(checkpoint_.files()[static_cast<std::size_t>(opened = piece.at.file)]);
            for (std::int64_t done = 0; done < piece.bytes;) {
                const auto wanted = std::min(buffer.size(), static_cast<std::size_t>(piece.bytes - done));
                const ::ssize_t got = ::pread(file->descriptor(), buffer.data(), wanted, piece.at.offset + done);
                if (got <= 0)
                    throw Error(ExitCode::input,
                                fmt::format("{}: cannot be read",
                                            checkpoint_.files()[static_cast<std::size_t>(opened)].string()));
                done += got;
            }
        }
    }

    const Checkpoint& checkpoint_;
    Backend& backend_;
    int threads_;
    std::vector<LayerRequest> requests_;
    std::vector<Piece> pieces_;
    std::int64_t bytes_ = 0;
    int turn_ = 0;
};

}  // namespace

std::span<const std::string_view> bench_part_names() {
    static constexpr std::array<std::string_view, 5> names = {"gemm", "copy", "gram", "heads", "load"};
    return names;
}

std::vector<std::unique_ptr<BenchPart>> make_bench_parts(const std::vector<std::string>& names, const Checkpoint& shape,
                                                         const Checkpoint* model, Backend& backend) {
    const auto wanted = [&names](const char* name) {
        return std::find(names.begin(), names.end(), name) != names.end();
    };
    std::vector<std::unique_ptr<BenchPart>> parts;
    const GemmPart* gemm = nullptr;
    if (wanted("gemm")) {
        auto part = std::make_unique<GemmPart>(shape.config(), backend);
        gemm = part.get();
        parts.push_back(std::move(part));
    }
    if (wanted("copy")) parts.push_back(std::make_unique<CopyPart>(backend));
    std::shared_ptr<LayerSource> source;
    if (wanted("gram") || wanted("heads")) source = std::make_shared<LayerSource>(shape, backend);
    if (wanted("gram")) parts.push_back(std::make_unique<GramPart>(shape, *source, backend, gemm));
    if (wanted("heads")) parts.push_back(std::make_unique<HeadsPart>(shape, source, backend));
    if (wanted("load")) parts.push_back(std::make_unique<LoadPart>(*model, backend));
    return parts;
}

}  // namespace geom
