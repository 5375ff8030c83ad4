#include "measures/head_store.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "checkpoint/checkpoint.hpp"
#include "core/error.hpp"
#include "kernels/cpu/isa.hpp"
#include "mpi/collectives.hpp"
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

PlanInput plan_input(const Checkpoint& checkpoint, const HeadBlockFormat& format, int ranks) {
    const ModelConfig& config = checkpoint.config();
    PlanInput in;
    in.layers = config.layers;
    in.heads = config.heads;
    in.kv_heads = config.kv_heads;
    in.head_dim = config.head_dim;
    in.hidden = config.hidden;
    const std::int64_t bytes =
        checkpoint.weight(WeightFamily::q_proj, 0).bytes() + checkpoint.weight(WeightFamily::k_proj, 0).bytes();
    in.part_bytes.assign(static_cast<std::size_t>(config.layers), {bytes, 0, 0, 0});
    in.layer_memory.assign(static_cast<std::size_t>(config.layers), bytes);
    in.head_blocks = true;
    in.block_bytes = format.bytes;
    in.stored_row_block = config.head_dim * checkpoint.weight(WeightFamily::q_proj, 0).row_bytes();
    for (std::int64_t head = 0; head < config.heads; ++head) in.pending_heads.push_back(head);
    in.ranks = ranks;
    in.budget = std::int64_t{1} << 40;
    return in;
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

// The rows of every head of a pass; of all heads where `whole`.
LayerRequest request_of(const Plan& plan, std::int64_t pass, std::int64_t layer, bool whole) {
    LayerRequest request{layer, {{WeightFamily::q_proj, {}}, {WeightFamily::k_proj, {}}}};
    const std::int64_t hd = plan.input.head_dim;
    if (whole) return request;
    for (const std::int64_t h : plan.heads_in_pass(pass)) request.weights[0].rows.push_back({h * hd, (h + 1) * hd});
    for (const std::int64_t c : plan.groups_in_pass(pass)) request.weights[1].rows.push_back({c * hd, (c + 1) * hd});
    return request;
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
        std::vector<LayerRequest> requests;
        for (const LoadItem& item : plan.ranks[static_cast<std::size_t>(world.rank())].loads) {
            requests.push_back(request_of(plan, pass, item.layer, pass == 0));
        }
        LayerStream stream(checkpoint, reader, backend, requests, {});
        HeadStore store(plan, pass, world.rank(), format, backend);
        for (std::int64_t round = 0; round < plan.rounds(); ++round)
            store.exchange_round(round, stream.next(), counting);
        ASSERT_EQ(stream.next(), nullptr);
        ASSERT_EQ(std::ssize(counting.exchanges()), (pass + 1) * plan.rounds());
        for (std::int64_t round = 0; round < plan.rounds(); ++round) {
            const auto& exchange = counting.exchanges()[static_cast<std::size_t>(pass * plan.rounds() + round)];
            const std::int64_t rank = world.rank();
            expect_one_message_each(plan.sends(pass, round, rank), exchange.sends, rank, format);
            expect_one_message_each(plan.receives(pass, round, rank), exchange.receives, rank, format);
        }

        for (std::size_t s = 0; s < store.shares().size(); ++s) {
            const GroupShare& share = store.shares()[s];
            const KvGroupBlocks blocks = store.group(static_cast<std::int64_t>(s));
            ASSERT_EQ(blocks.layers, plan.input.layers);
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

class HeadStores : public ::testing::TestWithParam<Model> {};

TEST_P(HeadStores, hold_every_layer_of_their_heads_in_any_number_of_passes) {
    const Communicator world = Communicator::world();
    const Checkpoint checkpoint = Checkpoint::open(GetParam().name, "", "");
    for (const bool amx : {false, true}) {
        if (amx && (GetParam().dtype != DType::bf16 || world.all_reduce_min(std::int64_t{have_amx_bf16()}) == 0))
            continue;
        const auto backend = make_cpu_backend(2, amx);
        const HeadBlockFormat format =
            backend->head_products().format(GetParam().dtype, checkpoint.config().head_dim, checkpoint.config().hidden);
        PlanInput input = plan_input(checkpoint, format, world.size());
        for (bool possible = true; possible;) {
            const Plan plan = make_plan(input);
            expect_every_block_arrives(checkpoint, plan, format, *backend, world);
            input.budget = plan.peak_bytes() - 1;
            try {
                make_plan(input);
            } catch (const Error&) {
                possible = false;
            }
        }
    }
}

TEST_P(HeadStores, hold_the_heads_that_a_resumed_run_still_owes) {
    const Communicator world = Communicator::world();
    const Checkpoint checkpoint = Checkpoint::open(GetParam().name, "", "");
    const auto backend = make_cpu_backend(1, false);
    const HeadBlockFormat format =
        backend->head_products().format(GetParam().dtype, checkpoint.config().head_dim, checkpoint.config().hidden);
    PlanInput input = plan_input(checkpoint, format, world.size());
    input.pending_heads = {1, 3};
    expect_every_block_arrives(checkpoint, make_plan(input), format, *backend, world);
}

INSTANTIATE_TEST_SUITE_P(Models, HeadStores, ::testing::ValuesIn(models), [](const auto& test) {
    return fmt::format("model_{}_{}", test.index, name_of(test.param.dtype));
});

}  // namespace
