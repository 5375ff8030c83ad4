#include "app/bench.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/machine.hpp"
#include "checkpoint/checkpoint.hpp"
#include "core/error.hpp"
#include "core/progress.hpp"
#include "kernels/backend.hpp"
#include "kernels/cpu/library_gemm.hpp"
#include "measures/heads.hpp"
#include "stream/layer_stream.hpp"
#include "stream/reader.hpp"

namespace geom {

namespace {

using nlohmann::ordered_json;

template <class F>
double seconds_of(F&& f) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

// One line of the table: a number for every repetition.
struct Row {
    std::string name, unit;
    std::vector<double> values;
};

class Table {
public:
    void add(const std::string& name, const std::string& unit, double value) {
        const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const Row& row) { return row.name == name; });
        Row& row = found == rows_.end() ? rows_.emplace_back(Row{name, unit, {}}) : *found;
        row.values.push_back(value);
    }

    std::string text() const {
        std::string out = fmt::format("{:<44} {:>10} {:>10} {:>10}  {}\n", "", "median", "min", "max", "unit");
        for (const Row& row : rows_) {
            const auto [low, high] = std::minmax_element(row.values.begin(), row.values.end());
            out += fmt::format("{:<44} {:>10.4g} {:>10.4g} {:>10.4g}  {}\n", row.name, median(row.values), *low, *high,
                               row.unit);
        }
        return out;
    }

    ordered_json json() const {
        ordered_json list = ordered_json::array();
        for (const Row& row : rows_) {
            const auto [low, high] = std::minmax_element(row.values.begin(), row.values.end());
            list.push_back({{"name", row.name},
                            {"unit", row.unit},
                            {"median", median(row.values)},
                            {"min", *low},
                            {"max", *high},
                            {"values", row.values}});
        }
        return list;
    }

private:
    std::vector<Row> rows_;
};

class Part {
public:
    virtual ~Part() = default;
    virtual void once(Table& table) = 0;
};

// --- the machine by itself
// --------------------------------------------------------------------------------------------

// Large products by a library: bf16 where the processor has tiles for it, else f32. The best of the shapes counts.
class GemmPart : public Part {
public:
    GemmPart(const ModelConfig& config, const Machine& machine) {
        const std::int64_t side = config.layers * config.head_dim;  // gram of a head as one product
        std::vector<cpu::GemmShape> shapes;
        for (const cpu::GemmShape& shape : {cpu::GemmShape{4096, 4096, 4096}, cpu::GemmShape{4096, 4096, config.hidden},
                                            cpu::GemmShape{side, side, config.hidden}}) {
            if (std::find(shapes.begin(), shapes.end(), shape) == shapes.end()) shapes.push_back(shape);
        }
        for (const cpu::GemmShape& shape : shapes) {
            cpu::LibraryGemm gemm = machine.amx ? cpu::onednn_gemm(shape, machine.threads) : cpu::LibraryGemm{};
            if (!gemm.multiply) gemm = cpu::openblas_gemm(shape, machine.threads);
            gemm.multiply();  // once for the library to settle
            gemms_.emplace_back(shape, std::move(gemm));
        }
    }

    void once(Table& table) override {
        best_ = 0.0;
        for (const auto& [shape, gemm] : gemms_) {
            const double rate = shape.flops() * 1e-12 / seconds_of(gemm.multiply);
            best_ = std::max(best_, rate);
            table.add(fmt::format("gemm, {}, {} x {} x {}", gemm.name, shape.m, shape.n, shape.k), "TFLOP/s", rate);
        }
        table.add("gemm", "TFLOP/s", best_);
    }

    double best() const noexcept { return best_; }  ///< TFLOP/s, of the last time

private:
    std::vector<std::pair<cpu::GemmShape, cpu::LibraryGemm>> gemms_;
    double best_ = 0.0;
};

// memcpy between two buffers beyond any cache, a slice a thread.
class CopyPart : public Part {
public:
    explicit CopyPart(Backend& backend)
        : backend_(backend), from_(backend.allocate(bytes)), to_(backend.allocate(bytes)) {
        std::memset(from_.data(), 1, static_cast<std::size_t>(bytes));
        copy();
    }

    void once(Table& table) override {
        table.add("copy, bytes read + written", "GB/s",
                  2e-9 * static_cast<double>(bytes) / seconds_of([this] { copy(); }));
    }

private:
    static constexpr std::int64_t bytes = std::int64_t{512} << 20;

    void copy() {
        const std::int64_t slices = backend_.workers().size();
        backend_.workers().for_each(slices, [&](std::int64_t i, int) {
            const std::int64_t begin = bytes / slices * i, end = i + 1 == slices ? bytes : bytes / slices * (i + 1);
            std::memcpy(to_.data() + begin, from_.data() + begin, static_cast<std::size_t>(end - begin));
        });
    }

    Backend& backend_;
    Buffer from_, to_;
};

// --- measures
// ---------------------------------------------------------------------------------------------------------

// W_Q and W_K of one layer at a time, as a run has them; reading is not part of what is timed.
class LayerSource {
public:
    LayerSource(const Checkpoint& checkpoint, Backend& backend)
        : checkpoint_(checkpoint), reader_(checkpoint.files(), backend.workers().size()) {
        const Weight q = checkpoint.weight(WeightFamily::q_proj, 0), k = checkpoint.weight(WeightFamily::k_proj, 0);
        q_ = backend.allocate(q.bytes());
        k_ = backend.allocate(k.bytes());
    }

    /// Blocks of the heads of `layer`, valid until the next call.
    void read(std::int64_t layer) {
        const Weight q = checkpoint_.weight(WeightFamily::q_proj, layer),
                     k = checkpoint_.weight(WeightFamily::k_proj, layer);
        const std::vector<ReadJob> jobs{{&q, {0, q.rows}, q_.data()}, {&k, {0, k.rows}, k_.data()}};
        reader_.read(jobs);
        q_blocks = blocks(q, q_);
        k_blocks = blocks(k, k_);
    }

    std::vector<MatrixRef> q_blocks, k_blocks;

private:
    std::vector<MatrixRef> blocks(const Weight& weight, const Buffer& buffer) const {
        const std::int64_t rows = checkpoint_.config().head_dim;
        std::vector<MatrixRef> list;
        for (std::int64_t row = 0; row < weight.rows; row += rows) {
            list.push_back({buffer.data() + row * weight.row_bytes(), weight.dtype, rows, weight.cols});
        }
        return list;
    }

    const Checkpoint& checkpoint_;
    Reader reader_;
    Buffer q_, k_;
};

// tile_dots of every key/value group, on blocks that lie packed as after the exchange.
class GramPart : public Part {
public:
    GramPart(const Checkpoint& checkpoint, LayerSource& source, Backend& backend, const GemmPart* gemm)
        : config_(checkpoint.config()),
          backend_(backend),
          gemm_(gemm),
          format_(backend.head_block_format(checkpoint.weight(WeightFamily::q_proj, 0).dtype, config_.head_dim,
                                            config_.hidden)),
          blocks_(backend.allocate((config_.heads + config_.kv_heads) * config_.layers * format_.bytes)),
          gram_(static_cast<std::size_t>(heads_a_group() * config_.layers * config_.layers)) {
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
            source.read(layer);
            pack(source.k_blocks, layer, 0);
            pack(source.q_blocks, layer, config_.kv_heads);
        }
    }

    void once(Table& table) override {
        const std::int64_t of_one = config_.layers * format_.bytes;
        const double seconds = seconds_of([&] {
            for (std::int64_t group = 0; group < config_.kv_heads; ++group) {
                const std::byte* q = blocks_.data() + (config_.kv_heads + group * heads_a_group()) * of_one;
                backend_.tile_dots({config_.layers, heads_a_group(), blocks_.data() + group * of_one, q}, format_,
                                   gram_);
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
        backend_.pack_head_blocks(heads, format_, out);
    }

    const ModelConfig& config_;
    Backend& backend_;
    const GemmPart* gemm_;
    HeadBlockFormat format_;
    Buffer blocks_;
    std::vector<double> gram_;
};

class HeadsPart : public Part {
public:
    HeadsPart(const Checkpoint& checkpoint, LayerSource& source, Backend& backend, std::int64_t top_k)
        : layers_(checkpoint.config().layers), source_(source), backend_(backend), top_k_(top_k) {}

    void once(Table& table) override {
        double seconds = 0.0;
        for (std::int64_t layer = 0; layer < layers_; ++layer) {
            source_.read(layer);
            seconds += seconds_of([&] {
                heads_of_layer(backend_.dense(), {layer, source_.q_blocks, source_.k_blocks}, top_k_);
            });
        }
        table.add("heads", "s", seconds);
    }

private:
    std::int64_t layers_;
    LayerSource& source_;
    Backend& backend_;
    std::int64_t top_k_;
};

// --- loading
// ----------------------------------------------------------------------------------------------------------

// The same bytes of a checkpoint twice, from storage: by the stream of a run, and by a loop of pread.
class LoadPart : public Part {
public:
    LoadPart(const Checkpoint& checkpoint, int threads)
        : checkpoint_(checkpoint), threads_(Reader::threads_for(checkpoint.files(), threads)) {
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

    void once(Table& table) override {
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
        LayerStream stream(checkpoint_, reader, requests_, {});
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
    int threads_;
    std::vector<LayerRequest> requests_;
    std::vector<Piece> pieces_;
    std::int64_t bytes_ = 0;
    int turn_ = 0;
};

// --- all of it
// --------------------------------------------------------------------------------------------------------

class Bench {
public:
    Bench(const BenchOptions& options, const Communicator& communicator)
        : options_(options), machine_(look_around(options.threads, 0, communicator)) {
        check();
        backend_ = make_cpu_backend(machine_.threads, machine_.amx);
        shape_ = std::make_unique<Checkpoint>(Checkpoint::open("synth:" + options.shape, "", ""));
        if (!options.model.empty()) model_ = std::make_unique<Checkpoint>(Checkpoint::open(options.model, "", ""));
        if (wanted("load") && model_ && model_->files().empty()) {
            throw Error(ExitCode::usage,
                        "bench load: synthetic weights are not read from storage; --model takes a folder "
                        "(geom-mpi synth SHAPE DIR writes one)");
        }
    }

    void run() {
        const std::vector<std::unique_ptr<Part>> parts = make_parts();
        for (std::int64_t turn = 0; turn < options_.repeat; ++turn) {
            for (const auto& part : parts) part->once(table_);
        }
        table_.add("peak memory", "GiB", static_cast<double>(peak_resident_bytes()) / (1 << 30));
    }

    void speak() const {
        fmt::print(options_.json == "-" ? stderr : stdout, "machine   {}\nshape     {}, {} times in turn\n\n{}",
                   machine_text(), options_.shape, options_.repeat, table_.text());
        if (options_.json.empty()) return;
        const ordered_json object = {{"machine", machine_text()}, {"threads", machine_.threads},
                                     {"shape", options_.shape},   {"model", options_.model},
                                     {"repeat", options_.repeat}, {"rows", table_.json()}};
        if (options_.json == "-") {
            fmt::print("{}\n", object.dump(2));
            return;
        }
        std::ofstream out(options_.json);
        out << object.dump(2) << "\n";
        if (!out.flush())
            throw Error(ExitCode::output, fmt::format("{}: the JSON object cannot be written", options_.json));
    }

private:
    static constexpr std::array<const char*, 5> names = {"gemm", "copy", "gram", "heads", "load"};

    void check() const {
        for (const std::string& part : options_.parts) {
            if (std::find(names.begin(), names.end(), part) == names.end()) {
                throw Error(
                    ExitCode::usage,
                    fmt::format("bench {}: no part of that name; there are gemm, copy, gram, heads and load", part));
            }
            if (part == "load" && options_.model.empty()) {
                throw Error(ExitCode::usage, "bench load needs a checkpoint on disk: --model FOLDER");
            }
        }
    }

    // Without names: every part that has what it needs.
    bool wanted(const std::string& name) const {
        if (options_.parts.empty()) return name != "load" || !options_.model.empty();
        return std::find(options_.parts.begin(), options_.parts.end(), name) != options_.parts.end();
    }

    std::vector<std::unique_ptr<Part>> make_parts() {
        std::vector<std::unique_ptr<Part>> parts;
        const GemmPart* gemm = nullptr;
        if (wanted("gemm")) {
            auto part = std::make_unique<GemmPart>(shape_->config(), machine_);
            gemm = part.get();
            parts.push_back(std::move(part));
        }
        if (wanted("copy")) parts.push_back(std::make_unique<CopyPart>(*backend_));
        if (wanted("gram") || wanted("heads")) source_ = std::make_unique<LayerSource>(*shape_, *backend_);
        if (wanted("gram")) parts.push_back(std::make_unique<GramPart>(*shape_, *source_, *backend_, gemm));
        if (wanted("heads")) parts.push_back(std::make_unique<HeadsPart>(*shape_, *source_, *backend_, 8));
        if (wanted("load")) parts.push_back(std::make_unique<LoadPart>(*model_, machine_.threads));
        return parts;
    }

    std::string machine_text() const {
        return fmt::format("{}, {} thread{}, {}; {}, {}", backend_->device(), machine_.threads,
                           machine_.threads == 1 ? "" : "s", machine_.amx ? "AMX bf16" : "no AMX", backend_->library(),
                           GEOM_COMPILED);
    }

    const BenchOptions& options_;
    Machine machine_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Checkpoint> shape_, model_;
    std::unique_ptr<LayerSource> source_;
    Table table_;
};

}  // namespace

void run_bench(const BenchOptions& options, const Communicator& communicator) {
    if (communicator.size() > 1) {
        throw Error(ExitCode::usage,
                    "bench times one rank; start it without mpirun (tests/bench/bench.py times runs of several)");
    }
    Bench bench(options, communicator);
    bench.run();
    bench.speak();
}

}  // namespace geom
