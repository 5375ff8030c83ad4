#include "app/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "app/choose_backend.hpp"
#include "app/fault.hpp"
#include "core/error.hpp"
#include "output/weights_digest.hpp"

namespace geom {

namespace {

std::string one_or_more(const char* what, const std::vector<std::int64_t>& rising) {
    return rising.size() == 1 ? fmt::format("{} {}", what, rising.front())
                              : fmt::format("{}s {} to {}", what, rising.front(), rising.back());
}

// Where a measure is, for a person who has to find what is wrong there.
std::string place_of(const Load& load, const ModelShape& shape) {
    if (load.of == UnitOf::global)
        return std::string(name_of(shape.globals[static_cast<std::size_t>(load.index)].family));
    const std::string layer = fmt::format("layer {}", shape.at(load.row).number);
    if (load.of != UnitOf::expert) return layer;
    return fmt::format("{}, {}", layer, one_or_more("expert", load.experts));
}

std::string place_of(const PairVisit& pair) { return one_or_more("head", pair.heads); }

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
      heartbeat_(communicator, progress, phases, [this] { return reader_.bytes_read() + survey_.backend->progress(); }),
      context_{survey.shape, survey.run.schema, *survey.backend,
               [this](UnitResult result) { record(std::move(result)); }} {
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
        if (pass == 0) sweep_rising();
        stream_.reset();
        look_at_pairs(pass, blocks);
    }
    finish_measures();
}

// --- what was read ---------------------------------------------------------------------------------------------------

namespace {

Weight weight_of(const Survey& survey, const WeightRows& rows) {
    const std::int64_t layer = rows.row < 0 ? -1 : survey.shape.at(rows.row).number;
    return survey.checkpoint.weight(rows.family, layer, rows.expert);
}

RowsRead without_digest(const Weight& weight, Range rows) {
    return {weight.tensor, weight.first_row + rows.begin, weight.first_row + rows.end};
}

}  // namespace

// With the rows that it was computed from: a resumed run knows by them what it did not read again. Those of head blocks
// were read by any rank.
void Schedule::record(UnitResult result) {
    const auto measure = std::find_if(plan_.input.measures.begin(), plan_.input.measures.end(),
                                      [&](const MeasureDemand& one) { return one.name == result.unit.measure; });
    if (survey_.run.units.contains(result.unit) && measure != plan_.input.measures.end()) {
        const bool of_heads = result.unit.of == UnitOf::head || result.unit.of == UnitOf::pair;
        for (const WeightRows& rows : rows_read(survey_.shape, measure->needs, result.unit)) {
            const Weight weight = weight_of(survey_, rows);
            RowsRead read = without_digest(weight, rows.rows);
            read.digest =
                of_heads ? block_digests_.at({read.tensor, read.begin}) : reader_.digest_of(weight, rows.rows);
            result.read.push_back(std::move(read));
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
        const Weight weight = weight_of(survey_, rows);
        RowsRead read = without_digest(weight, rows.rows);
        read.digest = reader_.digest_of(weight, rows.rows);
        blocks.push_back(std::move(read));
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

// What goes wrong inside a measure is said with the measure and the place.
template <class F>
void Schedule::call(std::int64_t measure, const std::string& place, F&& f) {
    const std::string& name = plan_.input.measures[static_cast<std::size_t>(measure)].name;
    phases_.time(name, [&] {
        try {
            maybe_fail(name, communicator_.rank());
            f(works_[static_cast<std::size_t>(measure)]);
        } catch (const Error& error) {
            throw Error(error.code(), fmt::format("{} ({}, {})", error.what(), name, place), error.where());
        }
    });
}

const LayerWeights* Schedule::next_load(Failure& failure) {
    const LayerWeights* weights = nullptr;
    phases_.time("load", [&] {
        failure.keep([&] {
            maybe_fail("load", communicator_.rank());
            heartbeat_.stop_if_asked();
            weights = stream_->next();
        });
    });
    return weights;
}

// Each rank's next load is looked at by itself, then its head blocks go to their owners.
void Schedule::sweep(std::int64_t pass, HeadStore& blocks) {
    const std::int64_t rounds = plan_.rounds(pass);
    if (rounds == 0) return;
    progress_.begin("load", static_cast<double>(mine().bytes_read) / static_cast<double>(plan_.passes), "B");
    begin_stream(pass == 0 ? mine().loads : mine().later_loads, pass, pass == 0 ? mine().slots : 2);
    for (std::int64_t round = 0; round < rounds; ++round) {
        const std::int64_t before = reader_.bytes_read();
        const Load* load = plan_.load(pass, round, communicator_.rank());
        Failure failure;
        const LayerWeights* weights = next_load(failure);
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
        call(visit.measure, place_of(load, survey_.shape), [&](const MeasureWork& work) { work.layer(seen); });
    }
}

// --- the rising sweep ------------------------------------------------------------------------------------------------
//
//   chunk c is on the i-th rank that has layers in step c + i:
//
//   step      0    1    2    3
//   rank 0    c0   c1   c2
//   rank 1         c0   c1   c2      what c0 carries goes from rank 0 to rank 1 between steps 0 and 1

std::int64_t Schedule::chunks() const {
    std::int64_t most = 0;
    for (const MeasureDemand& measure : plan_.input.measures) {
        if (!measure.owed.empty()) most = std::max(most, measure.needs.rising.chunks);
    }
    return most;
}

std::vector<std::int64_t> Schedule::rising_ranks() const {
    std::vector<std::int64_t> ranks;
    for (std::int64_t rank = 0; rank < std::ssize(plan_.ranks); ++rank) {
        if (!plan_.ranks[static_cast<std::size_t>(rank)].rising.empty()) ranks.push_back(rank);
    }
    return ranks;
}

void Schedule::sweep_rising() {
    const std::vector<std::int64_t> stages = rising_ranks();
    if (stages.empty()) return;
    const std::vector<Load>& loads = mine().rising;
    const std::int64_t stage =
        std::find(stages.begin(), stages.end(), std::int64_t{communicator_.rank()}) - stages.begin();
    std::vector<std::vector<std::byte>> states;  // also of measures whose weights this rank's layers lack
    for (const MeasureDemand& measure : plan_.input.measures) {
        const bool carries = !measure.owed.empty() && measure.needs.rising.chunks > 0;
        states.emplace_back(static_cast<std::size_t>(carries ? measure.needs.rising.state_bytes : 0));
    }
    if (!loads.empty()) begin_stream(loads, 0, mine().slots);
    const std::vector<LayerRequest> requests = requests_of(plan_, loads, 0);
    for (std::int64_t step = 0; step < chunks() + std::ssize(stages) - 1; ++step) {
        const std::int64_t chunk = step - stage;
        Failure failure;
        if (!loads.empty() && chunk >= 0 && chunk < chunks()) {
            if (chunk > 0) failure.keep([&] { stream_->restart(requests); });
            for (const Load& load : loads) {
                const LayerWeights* weights = next_load(failure);
                if (weights != nullptr) failure.keep([&] { visit_rising(load, *weights, chunk, states); });
            }
        }
        failure.agree(communicator_, phases_);
        pass_states_on(step, states);
    }
}

void Schedule::visit_rising(const Load& load, const LayerWeights& weights, std::int64_t chunk,
                            std::vector<std::vector<std::byte>>& states) {
    for (const Visit& visit : load.visits) {
        const auto m = static_cast<std::size_t>(visit.measure);
        const Rising& rising = plan_.input.measures[m].needs.rising;
        if (chunk >= rising.chunks) continue;
        LayerVisit seen{load.of, load.row, load.index, load.rows, weights};
        seen.units = visit.units;
        seen.chunk = chunk;
        seen.state = states[m];
        seen.complete = chunk == rising.chunks - 1;
        call(visit.measure, place_of(load, survey_.shape), [&](const MeasureWork& work) { work.layer(seen); });
    }
}

// After a step: to the next rank with layers goes what the chunk carries that was here. States are host memory.
void Schedule::pass_states_on(std::int64_t step, std::vector<std::vector<std::byte>>& states) {
    const std::vector<std::int64_t> stages = rising_ranks();
    const auto stage = std::find(stages.begin(), stages.end(), std::int64_t{communicator_.rank()}) - stages.begin();
    std::vector<std::string> sends(static_cast<std::size_t>(communicator_.size()));
    const std::int64_t chunk = step - stage;
    if (stage + 1 < std::ssize(stages) && chunk >= 0 && chunk < chunks()) {
        std::string& message = sends[static_cast<std::size_t>(stages[static_cast<std::size_t>(stage + 1)])];
        for (const auto& state : states) message.append(reinterpret_cast<const char*>(state.data()), state.size());
    }
    phases_.time("exchange", [&] {
        for (const std::string& message : communicator_.all_to_all(sends)) {
            std::size_t at = 0;
            for (std::size_t m = 0; m < states.size() && !message.empty(); ++m) {
                std::copy_n(reinterpret_cast<const std::byte*>(message.data()) + at, states[m].size(),
                            states[m].begin());
                at += states[m].size();
            }
        }
    });
}

// --- pairs of heads --------------------------------------------------------------------------------------------------

// All ranks go through as many shares as any of them has, so that they can stop together between two.
void Schedule::look_at_pairs(std::int64_t pass, const HeadStore& blocks) {
    const std::vector<PairVisit>& visits = mine().passes[static_cast<std::size_t>(pass)].visits;
    const std::int64_t rounds = plan_.pair_rounds(pass);
    if (rounds == 0) return;
    const double flops = static_cast<double>(mine().flops()) / static_cast<double>(plan_.passes);
    progress_.begin("products", flops, "FLOP");
    Failure failure;
    for (std::int64_t round = 0; round < rounds; ++round) {
        failure.keep([&] { heartbeat_.stop_if_asked(); });
        failure.agree(communicator_, phases_);
        if (round >= std::ssize(visits)) continue;
        const PairVisit& pair = visits[static_cast<std::size_t>(round)];
        for (const Visit& visit : pair.visits) {
            failure.keep([&] {
                call(visit.measure, place_of(pair), [&](const MeasureWork& work) {
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
