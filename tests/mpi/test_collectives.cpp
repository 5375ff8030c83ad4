#include "mpi/collectives.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "core/buffer.hpp"
#include "core/error.hpp"
#include "mpi/native.hpp"
#include "mpi/pieces.hpp"

namespace {

using geom::Communicator;
using geom::Message;

std::byte element(int from, int to, std::int64_t number, std::int64_t i) {
    return static_cast<std::byte>((from * 7 + to * 11 + number * 13 + i) % 251);
}

// The messages of one direction between this rank and every other, `lengths(from, to)` long.
template <class Lengths>
struct Mailbox {
    std::vector<std::vector<std::byte>> memory;
    std::vector<Message> messages;

    Mailbox(const Communicator& world, bool sending, const Lengths& lengths) {
        for (int peer = 0; peer < world.size(); ++peer) {
            const int from = sending ? world.rank() : peer, to = sending ? peer : world.rank();
            std::int64_t number = 0;
            for (const std::int64_t length : lengths(from, to)) {
                memory.emplace_back(static_cast<std::size_t>(length));
                for (std::int64_t i = 0; sending && i < length; ++i) {
                    memory.back()[static_cast<std::size_t>(i)] = element(from, to, number, i);
                }
                messages.push_back({peer, memory.back().data(), length});
                ++number;
            }
        }
    }
};

template <class Lengths>
void expect_exchanged(const Lengths& lengths) {
    const Communicator world = Communicator::world();
    const auto collectives = geom::make_host_collectives(world);
    const Mailbox sent(world, true, lengths);
    const Mailbox received(world, false, lengths);
    collectives->exchange(sent.messages, received.messages);
    std::vector<std::int64_t> number(static_cast<std::size_t>(world.size()));
    for (const Message& message : received.messages) {
        const std::int64_t n = number[static_cast<std::size_t>(message.peer)]++;
        for (std::int64_t i = 0; i < message.bytes; ++i) {
            ASSERT_EQ(message.data[i], element(message.peer, world.rank(), n, i))
                << "from " << message.peer << ", " << n;
        }
    }
}

TEST(Exchange, brings_one_message_between_every_pair_of_ranks_and_to_oneself) {
    expect_exchanged([](int, int) { return std::vector<std::int64_t>{1000}; });
}

TEST(Exchange, keeps_the_order_of_many_messages_of_a_pair) {
    expect_exchanged([](int from, int to) {
        std::vector<std::int64_t> lengths;
        for (int i = 0; i < 40; ++i) lengths.push_back(1 + (i * 37 + from * 5 + to) % 9000);
        return lengths;
    });
}

TEST(Exchange, takes_empty_messages_and_ragged_numbers_of_them) {
    expect_exchanged([](int from, int to) {
        std::vector<std::int64_t> lengths;
        for (int i = 0; i < (from + 2 * to) % 4; ++i) lengths.push_back(i % 2 == 0 ? 0 : 100 * from + i);
        return lengths;
    });
}

TEST(Exchange, of_nothing_returns) {
    expect_exchanged([](int, int) { return std::vector<std::int64_t>{}; });
}

TEST(Exchange, brings_messages_that_are_too_long_for_a_transport_to_keep) {
    expect_exchanged([](int, int) { return std::vector<std::int64_t>{1 << 20, 3, 2 << 20}; });
}

TEST(Exchange, may_send_the_same_memory_to_several_ranks) {
    const Communicator world = Communicator::world();
    const auto collectives = geom::make_host_collectives(world);
    std::vector<std::byte> mine(5000, static_cast<std::byte>(world.rank()));
    std::vector<std::vector<std::byte>> from(static_cast<std::size_t>(world.size()), std::vector<std::byte>(5000));
    std::vector<Message> sends, receives;
    for (int r = 0; r < world.size(); ++r) {
        sends.push_back({r, mine.data(), 5000});
        receives.push_back({r, from[static_cast<std::size_t>(r)].data(), 5000});
    }
    collectives->exchange(sends, receives);
    for (int r = 0; r < world.size(); ++r) {
        EXPECT_EQ(from[static_cast<std::size_t>(r)], std::vector<std::byte>(5000, static_cast<std::byte>(r)));
    }
}

TEST(Exchange, refuses_a_message_to_oneself_that_nobody_receives) {
    const Communicator world = Communicator::world();
    const auto collectives = geom::make_host_collectives(world);
    std::byte data[8] = {};
    const std::vector<Message> sends = {{world.rank(), data, 8}};
    EXPECT_THROW(collectives->exchange(sends, {}), geom::Error);
    const std::vector<Message> receives = {{world.rank(), data + 4, 4}};
    EXPECT_THROW(collectives->exchange(sends, receives), geom::Error);
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

TEST(Exchange, brings_a_message_of_more_than_2_gib) {
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
