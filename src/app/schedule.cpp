#include "app/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "app/choose_backend.hpp"
#include "core/error.hpp"
#include "output/weights_digest.hpp"

namespace geom {

namespace {

std::string one_or_more(const char* what, const std::vector<std::int64_t>& rising) {
    return rising.size() == 1 ? fmt::format("{} {}", what, rising.front())
                              : fmt::format("{}s {} to {}", what, rising.front(), rising.back());
}

}  // namespace

Schedule::Schedule(const Survey& survey, const Plan& plan, Recorder& recorder, const Communicator& communicator,
                   Phases& phases, Progress& progress)
    : survey_(survey),
      plan_(plan),
      recorder_(recorder),
      communicator_(communicator),
      phases_(phases),
      progress_(progress),
      reader_(survey.checkpoint.files(), Reader::threads_for(survey.checkpoint.files(), survey.machine.threads),
              survey.checkpoint.stamps()),
      heartbeat_(communicator, progress, phases, journal_folder(survey.run.file).string(),
                 [this] { return reader_.bytes_read() + survey_.backend->progress(); }),
      context_{survey.shape, survey.run.schema, *survey.backend,
               [this](UnitResult result) { record(std::move(result)); },
               [this](WeightFamily family, std::span<const Range> rows) { return read_rows(family, rows); }} {
    for (const Measure* measure : survey.measures) works_.push_back(measure->start(context_));
    communicator_.set_idle([this] { heartbeat_.tick(); });
    survey_.backend->workers().set_idle([this] { heartbeat_.tick(); });
}

Schedule::~Schedule() {
    communicator_.set_idle({});
    survey_.backend->workers().set_idle({});
}

void Schedule::run() {
    collectives_ = make_collectives(*survey_.backend, survey_.machine, communicator_);
    for (std::int64_t pass = 0; pass < plan_.passes; ++pass) {
        HeadStore blocks(plan_, pass, communicator_.rank(), *survey_.backend);
        sweep(pass, blocks);
        share_digests(pass);
        if (!plan_.resident) stream_.reset();
        if (pass == 0) sweep_rising();
        stream_.reset();
        look_at_pairs(pass, blocks);
    }
    finish_measures();
}

// --- what was read ---------------------------------------------------------------------------------------------------

Weight Schedule::weight_of(const WeightRows& rows) const {
    const std::int64_t layer = rows.row < 0 ? -1 : survey_.shape.at(rows.row).number;
    return survey_.checkpoint.weight(rows.family, layer, rows.expert);
}

RowsRead Schedule::read_of(const Weight& weight, Range rows) const {
    return {weight.tensor, weight.first_row + rows.begin, weight.first_row + rows.end, reader_.digest_of(weight, rows)};
}

RowsRead Schedule::shared_read_of(const Weight& weight, Range rows) const {
    const std::int64_t begin = weight.first_row + rows.begin;
    return {weight.tensor, begin, weight.first_row + rows.end, block_digests_.at({weight.tensor, begin})};
}

StoredRows Schedule::read_rows(WeightFamily family, std::span<const Range> rows) {
    const Weight weight = survey_.checkpoint.weight(family, -1);
    StoredRows stored{memory_dtype(weight.dtype), weight.cols, {}};
    const std::int64_t row_bytes = weight.cols * size_of(stored.dtype);
    std::int64_t count = 0;
    for (const Range range : rows) count += range.size();
    stored.data = allocate_host(count * row_bytes);
    std::vector<ReadJob> jobs;
    std::byte* to = stored.data.data();
    for (const Range range : rows) {
        jobs.push_back({&weight, range, to});
        to += range.size() * row_bytes;
    }
    reader_.read(jobs);
    return stored;
}

// With the rows that it was computed from: a resumed run knows by them what it did not read again. Those of head blocks
// and of strips were read by any rank.
void Schedule::record(UnitResult result) {
    const auto measure = std::find_if(plan_.input.measures.begin(), plan_.input.measures.end(),
                                      [&](const MeasureDemand& one) { return one.name == result.unit.measure; });
    if (survey_.run.units.contains(result.unit) && measure != plan_.input.measures.end()) {
        const bool of_heads = result.unit.of == UnitOf::head || result.unit.of == UnitOf::pair,
                   of_strips = result.unit.of == UnitOf::global && measure->needs.rising.after == result.unit.first;
        for (const WeightRows& rows : rows_read(survey_.shape, measure->needs, result.unit)) {
            const Weight weight = weight_of(rows);
            const bool by_any = of_heads || (of_strips && rows.family != WeightFamily::final_norm);
            result.read.push_back(by_any ? shared_read_of(weight, rows.rows) : read_of(weight, rows.rows));
        }
    }
    recorder_.take(std::move(result));
}

// Every rank learns the digests of the head blocks that were exchanged in a pass.
void Schedule::share_digests(std::int64_t pass) {
    if (!plan_.head_blocks) return;
    const auto heads = plan_.heads_in_pass(pass), groups = plan_.groups_in_pass(pass);
    std::vector<RowsRead> blocks;
    const auto add = [&](const Load& load, WeightFamily family, Range of_weight) {
        const WeightRows rows{load.row, family, -1, of_weight};
        const Weight weight = weight_of(rows);
        blocks.push_back(read_of(weight, rows.rows));
    };
    for (const Load& load : pass == 0 ? mine().loads : mine().later_loads) {
        if (!load.heads) continue;
        const std::int64_t hd = survey_.shape.at(load.row).head_dim;
        for (const std::int64_t head : heads) add(load, WeightFamily::q_proj, {head * hd, (head + 1) * hd});
        for (const std::int64_t group : groups) {
            const std::int64_t key = survey_.shape.kv_head(load.row, group);
            add(load, WeightFamily::k_proj, {key * hd, (key + 1) * hd});
        }
        // what folded blocks were made with
        if (std::binary_search(load.whole.begin(), load.whole.end(), WeightFamily::input_ln))
            add(load, WeightFamily::input_ln, {0, survey_.shape.at(load.row).find(WeightFamily::input_ln)->rows});
    }
    phases_.time("exchange", [&] {
        for (const std::string& bytes : communicator_.all_gather(bytes_of(blocks))) {
            for (const RowsRead& rows : rows_of(bytes)) block_digests_[{rows.tensor, rows.begin}] = rows.digest;
        }
    });
}

void Schedule::begin_stream(const std::vector<Load>& loads, std::int64_t pass, std::int64_t slots) {
    stream_.reset();
    stream_ =
        std::make_unique<LayerStream>(std::vector<StreamSource>{{&survey_.checkpoint, &reader_}}, *survey_.backend,
                                      requests_of(plan_, loads, pass), slots, [this] { heartbeat_.tick(); });
}

// For a person who has to find what is wrong there.
std::string Schedule::place_of(const Load& load) const {
    if (load.of == UnitOf::global)
        return std::string(name_of(survey_.shape.globals[static_cast<std::size_t>(load.index)].family));
    const std::string layer = fmt::format("layer {}", survey_.shape.at(load.row).number);
    return load.of == UnitOf::expert ? fmt::format("{}, {}", layer, one_or_more("expert", load.experts)) : layer;
}

// Nothing where this rank has no load, while others have.
const LayerWeights* Schedule::next_load(Failure& failure, bool there_is_one) {
    const LayerWeights* weights = nullptr;
    phases_.time("load", [&] {
        failure.keep([&] {
            maybe_fail("load", communicator_.rank());
            heartbeat_.stop_if_asked();
            if (there_is_one) weights = stream_->next();
        });
    });
    return weights;
}

// Each rank's next load is looked at by itself, then its head blocks go to their owners.
void Schedule::sweep(std::int64_t pass, HeadStore& blocks) {
    const std::int64_t rounds = plan_.rounds(pass);
    if (rounds == 0) return;
    progress_.begin("load", "weights", static_cast<double>(mine().bytes_read) / static_cast<double>(plan_.passes), "B");
    std::vector<Load> loads = pass == 0 ? mine().loads : mine().later_loads;
    if (pass == 0 && plan_.resident) loads.insert(loads.end(), mine().rising.begin(), mine().rising.end());
    begin_stream(loads, pass, pass == 0 ? mine().slots : 2);
    for (std::int64_t round = 0; round < rounds; ++round) {
        const std::int64_t before = reader_.bytes_read();
        const Load* load = plan_.load(pass, round, communicator_.rank());
        Failure failure;
        const LayerWeights* weights = next_load(failure, load != nullptr);
        if (weights != nullptr) failure.keep([&] { visit(*load, *weights); });
        const bool exchanges = plan_.exchanges(pass, round);
        if (exchanges && weights != nullptr && load->heads)
            phases_.time("exchange", [&] { failure.keep([&] { blocks.pack_round(round, *weights); }); });
        failure.agree(communicator_, phases_);
        if (exchanges) {
            phases_.time("exchange", [&] {
                maybe_fail("exchange", communicator_.rank());
                blocks.exchange_round(round, *collectives_);
            });
        }
        progress_.advance(static_cast<double>(reader_.bytes_read() - before));
    }
    if (plan_.head_blocks) phases_.time("exchange", [&] { blocks.exchange_exponents(communicator_); });
    progress_.end();
}

void Schedule::visit(const Load& load, const LayerWeights& weights) {
    for (const Visit& visit : load.visits) {
        LayerVisit seen{load.of, load.row, load.index, load.rows, weights};
        if (plan_.input.measures[static_cast<std::size_t>(visit.measure)].needs.previous_layer && load.after_previous)
            seen.previous = stream_->previous();
        seen.units = visit.units;
        if (load.of == UnitOf::global)
            seen.complete = load.rows.end == survey_.shape.globals[static_cast<std::size_t>(load.index)].rows;
        call(visit.measure, place_of(load), [&](const MeasureWork& work) { work.layer(seen); });
    }
}

// --- pairs of heads --------------------------------------------------------------------------------------------------

// All ranks go through as many shares as any of them has, so that they can stop together between two.
void Schedule::look_at_pairs(std::int64_t pass, const HeadStore& blocks) {
    const std::vector<PairVisit>& visits = mine().passes[static_cast<std::size_t>(pass)].visits;
    const std::int64_t rounds = plan_.pair_rounds(pass);
    if (rounds == 0) return;
    const double flops = static_cast<double>(mine().flops()) / static_cast<double>(plan_.passes);
    progress_.begin("products", "pairs of heads", flops, "FLOP");
    Failure failure;
    for (std::int64_t round = 0; round < rounds; ++round) {
        failure.keep([&] { heartbeat_.stop_if_asked(); });
        failure.agree(communicator_, phases_);
        if (round >= std::ssize(visits)) continue;
        const PairVisit& pair = visits[static_cast<std::size_t>(round)];
        for (const Visit& visit : pair.visits) {
            failure.keep([&] {
                call(visit.measure, one_or_more("head", pair.heads), [&](const MeasureWork& work) {
                    work.pair({blocks, pair.left, pair.right, pair.heads, visit.units});
                });
            });
        }
        progress_.advance(flops / static_cast<double>(visits.size()));
    }
    failure.agree(communicator_, phases_);
    context_.backend.head_products().end_products();
    progress_.end();
}

void Schedule::finish_measures() {
    Failure failure;
    for (std::size_t m = 0; m < works_.size(); ++m) {
        if (!works_[m].finish) continue;
        failure.keep(
            [&] { call(static_cast<std::int64_t>(m), "at its end", [](const MeasureWork& work) { work.finish(); }); });
    }
    failure.agree(communicator_, phases_);
}

}  // namespace geom
