#include "app/bench_parts.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include "app/bench_forward.hpp"
#include "checkpoint/describe_shape.hpp"
#include "core/error.hpp"
#include "exchange/head_store.hpp"
#include "measures/measure.hpp"
#include "plan/plan.hpp"
#include "stream/layer_requests.hpp"
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

// A measure as a run has it, on one rank with memory for everything; what it emits is dropped.
class Rehearsal {
public:
    Rehearsal(const char* name, const Checkpoint& checkpoint, Backend& backend)
        : measure_(*find_measure(name)),
          shape_(shape_of(checkpoint, {0, checkpoint.config().layers}, {})),
          schema_(measure_.declare(shape_)),
          context_{shape_, schema_, backend, [](const UnitResult&) {}},
          plan_(plan_for(measure_, shape_, backend)),
          reader_(checkpoint.files(), Reader::threads_for(checkpoint.files(), backend.workers().size())),
          stream_({{&checkpoint, &reader_}}, backend, requests_of(plan_, loads(), 0), 2, {}),
          work_(measure_.start(context_)) {}
    Rehearsal(const Rehearsal&) = delete;
    Rehearsal& operator=(const Rehearsal&) = delete;

    const Plan& plan() const noexcept { return plan_; }
    const ModelShape& shape() const noexcept { return shape_; }
    const MeasureWork& work() const noexcept { return work_; }
    const std::vector<Load>& loads() const { return plan_.ranks.front().loads; }

    /// f of every load, of its number among them, and of its weights.
    template <class F>
    void for_each_load(F&& f) {
        if (used_) stream_.restart(requests_of(plan_, loads(), 0));
        used_ = true;
        for (std::size_t i = 0; i < loads().size(); ++i) f(loads()[i], static_cast<std::int64_t>(i), *stream_.next());
    }

private:
    static Plan plan_for(const Measure& measure, const ModelShape& shape, Backend& backend) {
        PlanInput input;
        input.shape = shape;
        input.measures = {demand_of(measure, shape, backend, [](const Unit&) { return false; })};
        input.block_bytes = block_format(shape, backend).bytes;
        input.budget = input.device_budget = std::numeric_limits<std::int64_t>::max();
        return make_plan(input);
    }

    const Measure& measure_;
    const ModelShape shape_;
    const Schema schema_;
    const MeasureContext context_;
    const Plan plan_;
    Reader reader_;
    LayerStream stream_;
    const MeasureWork work_;
    bool used_ = false;
};

// What gram does with blocks that lie packed as after the exchange.
class GramPart : public BenchPart {
public:
    GramPart(const Checkpoint& checkpoint, Backend& backend, Collectives& collectives, const GemmPart* gemm)
        : gemm_(gemm),
          run_("gram", checkpoint, backend),
          format_(block_format(run_.shape(), backend)),
          blocks_(run_.plan(), 0, 0, backend) {
        run_.for_each_load([&](const Load& /*load*/, std::int64_t round, const LayerWeights& weights) {
            blocks_.pack_round(round, weights);
            blocks_.exchange_round(round, collectives);
        });
    }

    void once(BenchTable& table) override {
        const double seconds = seconds_of([&] {
            for (const PairVisit& pair : run_.plan().ranks.front().passes.front().visits) {
                for (const Visit& visit : pair.visits)
                    run_.work().pair({blocks_, pair.left, pair.right, pair.heads, visit.units});
            }
        });
        const double rate = static_cast<double>(run_.plan().flops()) * 1e-12 / seconds;
        table.add("gram", "s", seconds);
        table.add(fmt::format("gram, {}, half the matrix", format_.path), "TFLOP/s", rate);
        if (gemm_ != nullptr) table.add("gram / gemm", "", rate / gemm_->best());
    }

private:
    const GemmPart* gemm_;
    Rehearsal run_;
    HeadBlockFormat format_;
    HeadStore blocks_;
};

// What heads does with layers as they come; reading them is not part of what is timed.
class HeadsPart : public BenchPart {
public:
    HeadsPart(const Checkpoint& checkpoint, Backend& backend) : run_("heads", checkpoint, backend) {}

    void once(BenchTable& table) override {
        double seconds = 0.0;
        run_.for_each_load([&](const Load& load, std::int64_t /*round*/, const LayerWeights& weights) {
            for (const Visit& visit : load.visits) {
                LayerVisit seen{load.of, load.row, load.index, load.rows, weights};
                seen.units = visit.units;
                seconds += seconds_of([&] { run_.work().layer(seen); });
            }
        });
        table.add("heads", "s", seconds);
    }

private:
    Rehearsal run_;
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
    static constexpr std::array<std::string_view, 6> names = {"gemm", "copy", "gram", "heads", "forward", "load"};
    return names;
}

std::vector<std::unique_ptr<BenchPart>> make_bench_parts(const std::vector<std::string>& names, const Checkpoint& shape,
                                                         const Checkpoint* model, Backend& backend,
                                                         Collectives& collectives) {
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
    if (wanted("gram")) parts.push_back(std::make_unique<GramPart>(shape, backend, collectives, gemm));
    if (wanted("heads")) parts.push_back(std::make_unique<HeadsPart>(shape, backend));
    if (wanted("forward")) parts.push_back(make_forward_part(shape, backend));
    if (wanted("load")) parts.push_back(std::make_unique<LoadPart>(*model, backend));
    return parts;
}

}  // namespace geom
