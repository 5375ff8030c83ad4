// The contract of Collectives, for every body of it.
#include "mpi/collectives.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "core/buffer.hpp"
#include "core/error.hpp"
#include "mpi/native.hpp"
#include "mpi/pieces.hpp"
#include "support/collectives_bodies.hpp"
#include "support/error_of.hpp"

namespace {

using geom::Collectives;
using geom::Communicator;
using geom::Message;
using geom::test::Body;
using geom::test::Contents;
using geom::test::Transport;
using Seconds = std::chrono::duration<double>;

std::byte element(int from, int to, std::int64_t number, std::int64_t i) {
    return static_cast<std::byte>((from * 7 + to * 11 + number * 13 + i) % 251);
}

using Lengths = std::function<std::vector<std::int64_t>(int from, int to)>;

// The messages of one direction between this rank and every other, `lengths(from, to)` long, in one piece of memory.
class Mailbox {
public:
    Mailbox(Body& body, const Communicator& world, bool sending, const Lengths& lengths)
        : expected_(elements(world, sending, lengths)),
          contents_(body, sending ? expected_ : std::vector(expected_.size(), std::byte{0xEE})) {
        std::byte* at = contents_.data();
        for (int peer = 0; peer < world.size(); ++peer) {
            for (const std::int64_t length : of_peer(world, sending, lengths, peer)) {
                messages_.push_back({peer, at, length});
                at += length;
            }
        }
    }
    const std::vector<Message>& messages() const { return messages_; }
    void expect_arrived() const { EXPECT_EQ(contents_.fetch(), expected_); }

private:
    static std::vector<std::int64_t> of_peer(const Communicator& world, bool sending, const Lengths& lengths,
                                             int peer) {
        return sending ? lengths(world.rank(), peer) : lengths(peer, world.rank());
    }
    static std::vector<std::byte> elements(const Communicator& world, bool sending, const Lengths& lengths) {
        std::vector<std::byte> all;
        for (int peer = 0; peer < world.size(); ++peer) {
            const int from = sending ? world.rank() : peer, to = sending ? peer : world.rank();
            std::int64_t number = 0;
            for (const std::int64_t length : of_peer(world, sending, lengths, peer)) {
                for (std::int64_t i = 0; i < length; ++i) all.push_back(element(from, to, number, i));
                ++number;
            }
        }
        return all;
    }

    std::vector<std::byte> expected_;
    Contents contents_;
    std::vector<Message> messages_;
};

class Exchange : public testing::TestWithParam<Transport> {
protected:
    void SetUp() override {
        const std::string why = geom::test::why_not(GetParam(), world_);
        for (const std::string& anyones : world_.all_gather(why)) {
            if (!anyones.empty()) GTEST_SKIP() << anyones;
        }
        body_ = std::make_unique<Body>(GetParam(), world_);
    }

    void exchange(Collectives& collectives, const Lengths& lengths) {
        const Mailbox sent(*body_, world_, true, lengths);
        const Mailbox received(*body_, world_, false, lengths);
        collectives.exchange(sent.messages(), received.messages());
        received.expect_arrived();
    }
    void exchange(const Lengths& lengths) { exchange(*body_->make(), lengths); }

    Communicator world_ = Communicator::world();
    std::unique_ptr<Body> body_;
};

INSTANTIATE_TEST_SUITE_P(Over, Exchange,
                         testing::Values(Transport::host, Transport::staged, Transport::staged_on_gpu, Transport::nccl),
                         [](const auto& test) { return geom::test::name_of(test.param); });

TEST_P(Exchange, brings_one_message_between_every_pair_of_ranks_and_to_oneself) {
    exchange([](int, int) { return std::vector<std::int64_t>{1000}; });
}

TEST_P(Exchange, keeps_the_order_of_many_messages_of_a_pair) {
    exchange([](int from, int to) {
        std::vector<std::int64_t> lengths;
        for (int i = 0; i < 40; ++i) lengths.push_back(1 + (i * 37 + from * 5 + to) % 9000);
        return lengths;
    });
}

TEST_P(Exchange, keeps_the_order_of_messages_of_one_length) {
    exchange([](int, int) { return std::vector<std::int64_t>(25, 512); });
}

TEST_P(Exchange, takes_empty_messages_and_ragged_numbers_of_them) {
    exchange([](int from, int to) {
        std::vector<std::int64_t> lengths;
        for (int i = 0; i < (from + 2 * to) % 4; ++i) lengths.push_back(i % 2 == 0 ? 0 : 100 * from + i);
        return lengths;
    });
}

TEST_P(Exchange, of_nothing_returns) {
    exchange([](int, int) { return std::vector<std::int64_t>{}; });
}

TEST_P(Exchange, leaves_out_ranks_that_have_nothing_to_send_or_to_receive) {
    exchange([](int from, int to) { return std::vector<std::int64_t>(from == 0 && to != 0 ? 3 : 0, 700); });
    exchange([](int from, int to) { return std::vector<std::int64_t>(from != 0 && to == 0 ? 3 : 0, 700); });
}

TEST_P(Exchange, brings_messages_that_are_too_long_for_a_transport_to_keep) {
    exchange([](int, int) { return std::vector<std::int64_t>{1 << 20, 3, 2 << 20}; });
}

TEST_P(Exchange, can_be_done_again_and_again_with_more_and_with_less) {
    const auto collectives = body_->make();
    for (const std::int64_t most : {100, 5000, 300, 70'000, 1}) {
        exchange(*collectives, [most](int from, int to) {
            return std::vector<std::int64_t>{most + from, most / (to + 1)};
        });
    }
}

TEST_P(Exchange, may_send_the_same_memory_to_several_ranks) {
    const auto collectives = body_->make();
    const auto n = static_cast<std::size_t>(world_.size());
    const Contents mine(*body_, std::vector(5000, static_cast<std::byte>(world_.rank())));
    const Contents from(*body_, std::vector(5000 * n, std::byte{0xEE}));
    std::vector<Message> sends, receives;
    for (int r = 0; r < world_.size(); ++r) {
        sends.push_back({r, mine.data(), 5000});
        receives.push_back({r, from.data() + r * 5000, 5000});
    }
    collectives->exchange(sends, receives);
    std::vector<std::byte> expected;
    for (int r = 0; r < world_.size(); ++r) expected.insert(expected.end(), 5000, static_cast<std::byte>(r));
    EXPECT_EQ(from.fetch(), expected);
}

TEST_P(Exchange, refuses_messages_to_oneself_without_a_counterpart_before_anything_is_on_its_way) {
    const auto collectives = body_->make();
    const Contents memory(*body_, std::vector(8, std::byte{1}));
    const std::vector<Message> none, long_one = {{world_.rank(), memory.data(), 8}},
                                     short_one = {{world_.rank(), memory.data() + 4, 4}};
    const auto refused = [&](const std::vector<Message>& sends, const std::vector<Message>& receives) {
        geom::test::error_of([&] { collectives->exchange(sends, receives); }, geom::ExitCode::internal);
    };
    refused(long_one, none);
    refused(none, long_one);
    refused(long_one, short_one);
    exchange(*collectives, [](int, int) { return std::vector<std::int64_t>{50, 60}; });
}

TEST_P(Exchange, says_what_it_is) {
    const std::string name = body_->make()->name();
    if (GetParam() == Transport::host) {
        EXPECT_EQ(name, "mpi");
    } else {
        EXPECT_EQ(name, GetParam() == Transport::nccl ? "nccl" : "mpi, staged");
    }
}

// What the others were waiting for comes after they have given up, into memory that they still have.
TEST_P(Exchange, with_a_rank_that_does_not_come_ends_the_others_in_time_and_names_it) {
    if (world_.size() == 1) GTEST_SKIP() << "nobody to wait for";
    constexpr Seconds late{5}, deadline{0.4};  // two seconds are for asking who is there
    const int last = world_.size() - 1;
    const Lengths lengths = [](int, int) { return std::vector<std::int64_t>{1 << 20, 3}; };
    const auto collectives = body_->make();
    exchange(*collectives, lengths);
    int emergencies = 0, idle = 0;
    world_.set_emergency_exit([&](const geom::Error&) { ++emergencies; });
    const Mailbox sent(*body_, world_, true, lengths);
    const Mailbox received(*body_, world_, false, lengths);
    world_.barrier();
    const auto start = std::chrono::steady_clock::now();
    if (world_.rank() == last) {
        std::this_thread::sleep_for(late);
        collectives->exchange(sent.messages(), received.messages());
        received.expect_arrived();
    } else {
        world_.set_idle([&] { ++idle; });
        world_.set_deadline(deadline);
        const std::string message = geom::test::error_of(
            [&] { collectives->exchange(sent.messages(), received.messages()); }, geom::ExitCode::internal);
        const Seconds waited = std::chrono::steady_clock::now() - start;
        EXPECT_GE(waited, deadline);
        EXPECT_LT(waited, late);
        EXPECT_TRUE(
            geom::test::says(message, "weights from other ranks", "--deadline", fmt::format("rank {} on ", last)));
        for (int r = 0; r < last; ++r) EXPECT_EQ(message.find(fmt::format("rank {} on ", r)), std::string::npos);
        EXPECT_GE(idle, 3);
        EXPECT_EQ(emergencies, GetParam() == Transport::nccl ? 1 : 0) << "only NCCL's work must not unwind";
        world_.set_idle({});
        world_.set_deadline(Seconds(60));
        body_->queue().wait();
    }
    world_.barrier();
    world_.set_deadline(Seconds(600));
    world_.set_emergency_exit({});
}

TEST(StagedExchange, keeps_staging_memory_for_messages_to_and_from_others_and_copies_its_own_on_the_device) {
    const Communicator world = Communicator::world();
    Body body(Transport::staged, world);
    const auto collectives = body.make();
    const auto n = static_cast<std::size_t>(world.size());
    const Contents out(body, std::vector(n * 100, static_cast<std::byte>(world.rank())));
    const Contents in(body, std::vector(n * 100, std::byte{0xEE}));
    std::vector<std::int64_t> staged = body.fake().staged();
    for (const std::int64_t bytes : {40, 100, 60}) {
        std::vector<Message> sends, receives;
        for (int r = 0; r < world.size(); ++r) {
            sends.push_back({r, out.data() + 100 * r, bytes});
            receives.push_back({r, in.data() + 100 * r, bytes});
        }
        const std::int64_t needed = 2 * bytes * (world.size() - 1);
        EXPECT_EQ(geom::staging_bytes(world.rank(), sends, receives), needed);
        if (needed > 0 && bytes != 60) staged.push_back(needed);
        collectives->exchange(sends, receives);
        EXPECT_EQ(body.fake().staged(), staged);
    }
    EXPECT_EQ(body.fake().inside(), 3);
}

class Nccl : public testing::Test {
protected:
    void SetUp() override {
        for (const std::string& why : world_.all_gather(geom::test::why_not(Transport::nccl, world_))) {
            if (!why.empty()) GTEST_SKIP() << why;
        }
        body_ = std::make_unique<Body>(Transport::nccl, world_);
    }
    Communicator world_ = Communicator::world();
    std::unique_ptr<Body> body_;
};

TEST_F(Nccl, tells_its_version) { EXPECT_TRUE(geom::nccl_version().starts_with("NCCL 2.")) << geom::nccl_version(); }

TEST_F(Nccl, failure_is_told_in_its_own_words_and_as_an_emergency) {
    const auto collectives = body_->make();
    const Contents memory(*body_, std::vector(8, std::byte{1}));
    int emergencies = 0;
    world_.set_emergency_exit([&](const geom::Error&) { ++emergencies; });
    const std::vector<Message> to_nobody = {{world_.size() + 7, memory.data(), 8}};
    const std::string message =
        geom::test::error_of([&] { collectives->exchange(to_nobody, {}); }, geom::ExitCode::internal);
    EXPECT_TRUE(geom::test::says(message, "ncclSend failed", "invalid argument", "NCCL_DEBUG"));
    EXPECT_EQ(emergencies, 1);
    world_.set_emergency_exit({});
}

// The last rank takes part in the broadcast of NCCL's id, which comes first, and goes away.
TEST_F(Nccl, connects_all_ranks_or_gives_up_in_time) {
    if (world_.size() == 1) GTEST_SKIP() << "nobody to wait for";
    const int last = world_.size() - 1;
    if (world_.rank() == last) {
        world_.broadcast("", 0);
        std::this_thread::sleep_for(Seconds(5));
    } else {
        int emergencies = 0;
        world_.set_emergency_exit([&](const geom::Error&) { ++emergencies; });
        world_.set_deadline(Seconds(0.4));
        const std::string message = geom::test::error_of([&] { body_->make(); }, geom::ExitCode::internal);
        EXPECT_TRUE(geom::test::says(message, "NCCL to connect all ranks", fmt::format("rank {} on ", last)));
        EXPECT_EQ(emergencies, 1);
        world_.set_emergency_exit({});
        world_.set_deadline(Seconds(60));
    }
    world_.barrier();
    world_.set_deadline(Seconds(600));
}

TEST(Pieces, of_any_limit_bring_messages_of_any_length_in_order) {
    const Communicator world = Communicator::world();
    for (const std::int64_t limit : {1, 7, 64, 1000}) {
        for (const std::int64_t length : {0, 1, 6, 7, 8, 63, 64, 65, 999, 1000, 1001, 2000}) {
            std::vector<std::vector<std::byte>> out, in;
            std::vector<MPI_Request> requests;
            for (int r = 0; r < world.size(); ++r) {
                out.emplace_back();
                for (std::int64_t i = 0; i < length; ++i) out.back().push_back(element(world.rank(), r, limit, i));
                in.emplace_back(static_cast<std::size_t>(length));
            }
            for (int r = 0; r < world.size(); ++r) {
                geom::receive_pieces(world, {r, in[static_cast<std::size_t>(r)].data(), length}, requests, limit);
            }
            for (int r = 0; r < world.size(); ++r) {
                geom::send_pieces(world, {r, out[static_cast<std::size_t>(r)].data(), length}, requests, limit);
            }
            EXPECT_EQ(std::ssize(requests), 2 * world.size() * ((length + limit - 1) / limit));
            geom::wait_all(world, requests.data(), requests.size(), "pieces");
            for (int r = 0; r < world.size(); ++r) {
                for (std::int64_t i = 0; i < length; ++i) {
                    ASSERT_EQ(in[static_cast<std::size_t>(r)][static_cast<std::size_t>(i)],
                              element(r, world.rank(), limit, i));
                }
            }
        }
    }
}

std::int64_t available_bytes() {
    std::ifstream in("/proc/meminfo");
    for (std::string name, unit; in >> name;) {
        std::int64_t kib = 0;
        in >> kib;
        std::getline(in, unit);
        if (name == "MemAvailable:") return kib * 1024;
    }
    return 0;
}

TEST(HostExchange, brings_a_message_of_more_than_2_gib) {
    const Communicator world = Communicator::world();
    if (world.size() != 2) GTEST_SKIP() << "done at 2 ranks only";
    if (world.all_reduce_min(available_bytes()) < (std::int64_t{8} << 30))
        GTEST_SKIP() << "less than 8 GiB of memory are free";
    // Every page has its own number, and so has the last byte.
    constexpr std::int64_t bytes = (std::int64_t{21} << 30) / 10 + 12'345, page = 4096;
    const geom::Buffer memory = geom::allocate_host(bytes);
    const std::vector<Message> messages = {{1 - world.rank(), memory.data(), bytes}};
    const auto collectives = geom::make_host_collectives(world);
    if (world.rank() == 0) {
        for (std::int64_t at = 0; at + 8 <= bytes; at += page) std::memcpy(memory.data() + at, &at, 8);
        memory.data()[bytes - 1] = std::byte{77};
        collectives->exchange(messages, {});
        return;
    }
    collectives->exchange({}, messages);
    std::int64_t wrong = 0;
    for (std::int64_t at = 0; at + 8 <= bytes; at += page) {
        std::int64_t number = 0;
        std::memcpy(&number, memory.data() + at, 8);
        wrong += number == at ? 0 : 1;
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(memory.data()[bytes - 1], std::byte{77});
}

}  // namespace
