#include "exchange/head_store.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/describe_shape.hpp"
#include "core/error.hpp"
#include "kernels/cpu/isa.hpp"
#include "mpi/collectives.hpp"
#include "stream/layer_requests.hpp"
#include "stream/layer_stream.hpp"
#include "support/counting_collectives.hpp"

namespace {

using namespace geom;

struct Model {
    const char* name;
    DType dtype;
};

std::ostream& operator<<(std::ostream& out, const Model& model) { return out << model.name; }

constexpr Model models[] = {{"synth:L5-H12-KV3-hd8-D40-F64", DType::bf16},
                            {"synth:L3-H6-KV1-hd16-D33-F64?dtype=f32", DType::f32},
                            {"synth:L4-H5-KV5-hd8-D16-F64?dtype=f64", DType::f64},
                            {"synth:L1-H4-KV2-hd16-D64-F64?dtype=f16", DType::f32}};

// A measure that looks at these units of heads, and nothing else.
PlanInput plan_input(const Checkpoint& checkpoint, const HeadBlockFormat& format, std::vector<Unit> owed, int ranks) {
    PlanInput in;
    in.shape = shape_of(checkpoint, {0, checkpoint.config().layers}, {});
    MeasureDemand measure;
    measure.name = owed.front().measure;
    measure.needs.pairs = owed.front().of == UnitOf::pair ? HeadPairs::all_heads : HeadPairs::same_head;
    measure.owed = std::move(owed);
    in.measures = {std::move(measure)};
    in.block_bytes = format.bytes;
    in.ranks = ranks;
    in.budget = std::int64_t{1} << 40;
    return in;
}

std::vector<Unit> every_head(const Checkpoint& checkpoint) {
    std::vector<Unit> units;
    for (std::int64_t head = 0; head < checkpoint.config().heads; ++head)
        units.push_back({"some", UnitOf::head, head, 0});
    return units;
}

std::vector<Unit> every_pair(const Checkpoint& checkpoint) {
    std::vector<Unit> units;
    const ModelConfig& config = checkpoint.config();
    for (std::int64_t head = 0; head < config.heads; ++head) {
        for (std::int64_t group = head / (config.heads / config.kv_heads); group < config.kv_heads; ++group)
            units.push_back({"some", UnitOf::pair, head, group});
    }
    return units;
}

// A head's block of a layer, read by itself and packed.
Buffer expected_block(const Checkpoint& checkpoint, WeightFamily family, std::int64_t layer, std::int64_t head,
                      const HeadBlockFormat& format, Backend& backend) {
    const Weight weight = checkpoint.weight(family, layer);
    const Range rows{head * format.head_dim, (head + 1) * format.head_dim};
    std::vector<std::byte> bytes(static_cast<std::size_t>(rows.size() * weight.row_bytes()));
    Reader reader(checkpoint.files(), 1);
    const std::vector<ReadJob> jobs = {{&weight, rows, bytes.data()}};
    reader.read(jobs);
    Buffer block = backend.allocate(format.bytes);
    const std::vector<MatrixRef> stored = {{bytes.data(), weight.dtype, rows.size(), weight.cols}};
    const std::vector<std::byte*> out = {block.data()};
    backend.head_products().pack(stored, format, out);
    return block;
}

// A planned block is one message to or from each other rank, and there are no others; from one place each.
void expect_one_message_each(const std::vector<BlockTransfer>& planned, const std::vector<Message>& messages,
                             std::int64_t rank, const HeadBlockFormat& format) {
    std::set<std::tuple<bool, std::int64_t, std::int64_t, std::int64_t>> blocks;
    std::map<int, std::int64_t> expected, counted;
    for (const BlockTransfer& block : planned) {
        EXPECT_TRUE(blocks.emplace(block.key, block.head, block.layer, block.peer).second) << "planned twice";
        if (block.peer != rank) ++expected[static_cast<int>(block.peer)];
    }
    std::set<std::pair<int, const std::byte*>> places;
    for (const Message& message : messages) {
        ++counted[message.peer];
        EXPECT_EQ(message.bytes, format.bytes);
        EXPECT_TRUE(places.emplace(message.peer, message.data).second) << "the same block twice";
    }
    EXPECT_EQ(counted, expected);
}

void expect_every_block_arrives(const Checkpoint& checkpoint, const Plan& plan, const HeadBlockFormat& format,
                                Backend& backend, const Communicator& world) {
    const auto collectives = make_host_collectives(world);
    test::CountingCollectives counting(*collectives);
    Reader reader(checkpoint.files(), 2);
    for (std::int64_t pass = 0; pass < plan.passes; ++pass) {
        const RankPlan& mine = plan.ranks[static_cast<std::size_t>(world.rank())];
        LayerStream stream({{&checkpoint, &reader}}, backend,
                           requests_of(plan, pass == 0 ? mine.loads : mine.later_loads, pass), mine.slots, {});
        HeadStore store(plan, pass, world.rank(), backend);
        const std::int64_t rounds = plan.rounds(pass), before = std::ssize(counting.exchanges());
        for (std::int64_t round = 0; round < rounds; ++round) {
            if (const LayerWeights* weights = stream.next()) store.pack_round(round, *weights);
            store.exchange_round(round, counting);
        }
        store.exchange_exponents(world);
        ASSERT_EQ(stream.next(), nullptr);
        ASSERT_EQ(std::ssize(counting.exchanges()), before + rounds);
        for (std::int64_t round = 0; round < rounds; ++round) {
            const auto& exchange = counting.exchanges()[static_cast<std::size_t>(before + round)];
            const std::int64_t rank = world.rank();
            expect_one_message_each(plan.sends(pass, round, rank), exchange.sends, rank, format);
            expect_one_message_each(plan.receives(pass, round, rank), exchange.receives, rank, format);
        }

        for (std::size_t s = 0; s < store.shares().size(); ++s) {
            const GroupShare& share = store.shares()[s];
            const KvGroupBlocks blocks = store.group(static_cast<std::int64_t>(s));
            ASSERT_EQ(blocks.layers, plan.input.shape.rows());
            ASSERT_EQ(blocks.heads, std::ssize(share.heads));
            const auto same = [&](const std::byte* block, const Buffer& expected) {
                return std::memcmp(block, expected.data(), static_cast<std::size_t>(format.bytes)) == 0;
            };
            for (std::int64_t l = 0; l < blocks.layers; ++l) {
                EXPECT_TRUE(same(blocks.k + l * format.bytes,
                                 expected_block(checkpoint, WeightFamily::k_proj, l, share.group, format, backend)))
                    << "pass " << pass << " of " << plan.passes << ", layer " << l << ", key head " << share.group;
                for (std::int64_t i = 0; i < blocks.heads; ++i) {
                    const std::int64_t head = share.heads[static_cast<std::size_t>(i)];
                    EXPECT_TRUE(same(blocks.q + (i * blocks.layers + l) * format.bytes,
                                     expected_block(checkpoint, WeightFamily::q_proj, l, head, format, backend)))
                        << "pass " << pass << " of " << plan.passes << ", layer " << l << ", query head " << head;
                }
            }
        }
    }
}

class HeadStores : public ::testing::TestWithParam<Model> {
protected:
    // In as many passes as there can be, from one to a head a pass.
    void expect_blocks_arrive_in_any_number_of_passes(const std::vector<Unit>& units, Isa isa) {
        const auto backend = make_cpu_backend(2, isa);
        const HeadBlockFormat format = backend->head_products().format(GetParam().dtype, checkpoint_.config().head_dim,
                                                                       checkpoint_.config().hidden);
        PlanInput input = plan_input(checkpoint_, format, units, world_.size());
        for (bool possible = true; possible;) {
            const Plan plan = make_plan(input);
            expect_every_block_arrives(checkpoint_, plan, format, *backend, world_);
            input.budget = plan.peak_bytes() - 1;
            try {
                make_plan(input);
            } catch (const Error&) {
                possible = false;
            }
        }
    }

    const Communicator world_ = Communicator::world();
    const Checkpoint checkpoint_ = Checkpoint::open(GetParam().name, "", "");
};

TEST_P(HeadStores, hold_every_layer_of_their_heads_in_any_number_of_passes) {
    const auto most = static_cast<Isa>(world_.all_reduce_min(static_cast<std::int64_t>(processor_isa())));
    for (const Isa isa : {Isa::portable, most}) {
        expect_blocks_arrive_in_any_number_of_passes(every_head(checkpoint_), isa);
    }
}

TEST_P(HeadStores, hold_both_groups_of_pairs_in_any_number_of_passes) {
    expect_blocks_arrive_in_any_number_of_passes(every_pair(checkpoint_), Isa::portable);
}

TEST_P(HeadStores, hold_the_heads_that_a_resumed_run_still_owes) {
    expect_blocks_arrive_in_any_number_of_passes({{"some", UnitOf::head, 1, 0}, {"some", UnitOf::head, 3, 0}},
                                                 Isa::portable);
}

INSTANTIATE_TEST_SUITE_P(Models, HeadStores, ::testing::ValuesIn(models), [](const auto& test) {
    return fmt::format("model_{}_{}", test.index, name_of(test.param.dtype));
});

}  // namespace
