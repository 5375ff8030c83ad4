#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>

#include "core/error.hpp"
#include "core/range.hpp"
#include "mpi/agreement.hpp"
#include "mpi/communicator.hpp"
#include "output/output_path.hpp"
#include "output/result_file.hpp"
#include "output/write_slabs.hpp"

namespace {

using geom::Communicator;
using geom::ExitCode;
using geom::Schema;
using geom::Slab;
using geom::ValueType;
namespace fs = std::filesystem;

constexpr std::int64_t layers = 7, heads = 5, width = 11;  // no number of ranks but one divides 7

Schema schema() {
    Schema schema;
    schema.scales = {{"", "layer", layers, {}, "", {}},
                     {"", "head", heads, {}, "", {}},
                     {"", "hidden", width, {}, "", {}},
                     {"spectra", "family", 2, {"q_proj", "k_proj"}, "", {}}};
    schema.variables = {{"heads", "right_dirs", {"layer", "head", "hidden"}, ValueType::f32, "", "1", ""},
                        {"spectra", "eff_rank", {"family", "layer"}, ValueType::f64, "", "1", ""},
                        {"match", "assignment", {"layer"}, ValueType::i32, "", "1", ""},
                        {"analysis", "anchor", {}, ValueType::i32, "", "1", ""}};
    return schema;
}

/// What element (i, j, k) of a variable is, exactly representable in every type.
double expected(std::int64_t variable, std::int64_t i, std::int64_t j, std::int64_t k) {
    return static_cast<double>(variable * 100'000 + i * 1'000 + j * 100 + k);
}

template <class T>
void push(Slab& slab, double value) {
    const T element = static_cast<T>(value);
    const auto* bytes = reinterpret_cast<const std::byte*>(&element);
    slab.data.insert(slab.data.end(), bytes, bytes + sizeof element);
}

/// The slabs of `mine` layers of every variable; rank 0 has the scalar.
std::vector<Slab> slabs_of(geom::Range mine, bool with_scalar) {
    std::vector<Slab> slabs;
    if (with_scalar) push<std::int32_t>(slabs.emplace_back(Slab{3, {}, {}, {}}), expected(3, 0, 0, 0));
    if (mine.empty()) return slabs;
    Slab directions{0, {mine.begin, 0, 0}, {mine.size(), heads, width}, {}};
    Slab assignment{2, {mine.begin}, {mine.size()}, {}};
    for (std::int64_t l = mine.begin; l < mine.end; ++l) {
        push<std::int32_t>(assignment, expected(2, l, 0, 0));
        for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t d = 0; d < width; ++d) push<float>(directions, expected(0, l, h, d));
        }
    }
    slabs.push_back(std::move(directions));
    slabs.push_back(std::move(assignment));
    for (std::int64_t family = 0; family < 2; ++family) {
        auto& rank = slabs.emplace_back(Slab{1, {family, mine.begin}, {1, mine.size()}, {}});
        for (std::int64_t l = mine.begin; l < mine.end; ++l) push<double>(rank, expected(1, family, l, 0));
    }
    return slabs;
}

void expect_everything(const geom::ResultReader& reader) {
    const auto directions = reader.read("heads/right_dirs"), ranks = reader.read("spectra/eff_rank");
    const auto assignment = reader.read("match/assignment");
    for (std::int64_t l = 0; l < layers; ++l) {
        EXPECT_EQ(assignment[static_cast<std::size_t>(l)], expected(2, l, 0, 0));
        EXPECT_EQ(ranks[static_cast<std::size_t>(l)], expected(1, 0, l, 0));
        EXPECT_EQ(ranks[static_cast<std::size_t>(layers + l)], expected(1, 1, l, 0));
        for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t d = 0; d < width; ++d) {
                EXPECT_EQ(directions[static_cast<std::size_t>((l * heads + h) * width + d)], expected(0, l, h, d));
            }
        }
    }
    EXPECT_EQ(reader.read("analysis/anchor"), std::vector<double>{expected(3, 0, 0, 0)});
}

class ParallelWrite : public testing::Test {
protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "geom_parallel_XXXXXX").string();
        if (world_.rank() == 0) {
            ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        }
        folder_ = world_.broadcast(pattern, 0);
        file_ = fs::path(folder_) / "result.h5";
        temporary_ = world_.broadcast(geom::temporary_name(file_).string(), 0);
        if (world_.rank() == 0) geom::create_skeleton(temporary_, schema(), {{"", "model", "synth:tiny"}});
        world_.barrier();
    }
    void TearDown() override {
        world_.barrier();
        if (world_.rank() == 0) fs::remove_all(folder_);
        world_.barrier();
    }

    void write_verify_finish(const std::vector<Slab>& slabs) {
        geom::agree_on(world_, [&] { geom::write_slabs(temporary_, schema(), slabs, world_); });
        geom::agree_on(world_, [&] { geom::verify(temporary_, schema(), geom::checksums_of(schema(), slabs)); });
        geom::agree_on(world_, [&] {
            if (world_.rank() != 0) return;
            geom::append(temporary_, schema(), {}, {geom::complete_attribute()});
            geom::give_name(temporary_, file_, false);
        });
    }

    Communicator world_ = Communicator::world();
    std::string folder_;
    fs::path file_;
    fs::path temporary_;
};

TEST_F(ParallelWrite, brings_ragged_slabs_of_all_ranks_into_one_file) {
    const auto mine = geom::share(layers, world_.size(), world_.rank());
    write_verify_finish(slabs_of(mine, world_.rank() == 0));
    expect_everything(geom::ResultReader(file_));
    EXPECT_FALSE(fs::exists(temporary_));
}

TEST_F(ParallelWrite, lets_ranks_with_nothing_take_part) {
    const bool last = world_.rank() == world_.size() - 1;
    write_verify_finish(last ? slabs_of({0, layers}, true) : std::vector<Slab>{});
    expect_everything(geom::ResultReader(file_));
}

// Open MPI 4.1.4 can corrupt collective writes (open-mpi/ompi#12718); slabs of a few MB are written independently here.
TEST_F(ParallelWrite, writes_the_same_numbers_as_given_two_hundred_times) {
    constexpr std::int64_t rows = 101, columns = 8191;  // neither whole pages nor whole stripes
    Schema wide;
    wide.scales = {{"", "layer", rows, {}, "", {}}, {"", "hidden", columns, {}, "", {}}};
    wide.variables = {{"", "numbers", {"layer", "hidden"}, ValueType::f64, "", "1", ""}};
    const fs::path file = world_.broadcast((fs::path(folder_) / "wide.h5").string(), 0);
    geom::agree_on(world_, [&] {
        if (world_.rank() == 0) geom::create_skeleton(file, wide, {});
    });
    const auto mine = geom::share(rows, world_.size(), world_.rank());
    std::vector<double> numbers(static_cast<std::size_t>(mine.size() * columns));
    for (int round = 0; round < 200; ++round) {
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            numbers[i] = static_cast<double>(i) + 1e7 * world_.rank() + 1e9 * round;
        }
        const Slab slab = geom::make_slab(wide, "numbers", {mine.begin, 0}, {mine.size(), columns},
                                          std::as_bytes(std::span(numbers)));
        geom::agree_on(world_, [&] { geom::write_slabs(file, wide, {slab}, world_); });
        geom::agree_on(world_, [&] { geom::verify(file, wide, geom::checksums_of(wide, {&slab, 1})); });
    }
}

TEST_F(ParallelWrite, can_go_on_in_several_calls) {
    const auto mine = geom::share(layers, world_.size(), world_.rank());
    for (std::int64_t l = 0; l < layers; ++l) {
        const auto slabs = mine.contains(l) ? slabs_of({l, l + 1}, l == 0) : std::vector<Slab>{};
        geom::agree_on(world_, [&] { geom::write_slabs(temporary_, schema(), slabs, world_); });
    }
    expect_everything(geom::ResultReader(temporary_, true));
}

TEST_F(ParallelWrite, fails_on_one_rank_without_holding_up_the_others) {
    auto slabs = slabs_of(geom::share(layers, world_.size(), world_.rank()), world_.rank() == 0);
    const bool broken = world_.rank() == world_.size() - 1;
    if (broken) slabs.back().start.back() = layers;  // outside the variable
    std::optional<ExitCode> code;
    try {
        geom::write_slabs(temporary_, schema(), slabs, world_);
    } catch (const geom::Error& error) {
        code = error.code();
    }
    const auto expected_code = broken ? std::optional(ExitCode::internal) : std::nullopt;
    EXPECT_EQ(code, expected_code) << "only the rank that failed throws";
}

TEST_F(ParallelWrite, is_refused_by_all_when_the_file_is_missing) {
    try {
        geom::write_slabs(fs::path(folder_) / "missing.h5", schema(), {}, world_);
        ADD_FAILURE() << "nothing was thrown";
    } catch (const geom::AgreedError& error) {
        EXPECT_EQ(error.code(), ExitCode::output);
        EXPECT_NE(std::string(error.what()).find("No such file or directory"), std::string::npos) << error.what();
    }
}

TEST_F(ParallelWrite, is_refused_by_all_when_one_rank_sees_another_file) {
    if (world_.size() == 1) GTEST_SKIP() << "one rank sees one file";
    const fs::path other = fs::path(folder_) / "other.h5";
    if (world_.rank() == 0) {
        fs::copy_file(temporary_, other);
        fs::resize_file(other, 10);
    }
    world_.barrier();
    const bool last = world_.rank() == world_.size() - 1;
    EXPECT_THROW(geom::write_slabs(last ? other : temporary_, schema(), {}, world_), geom::AgreedError);
}

TEST_F(ParallelWrite, is_refused_by_all_when_the_file_is_not_hdf5) {
    const fs::path text = fs::path(folder_) / "text.h5";
    if (world_.rank() == 0) std::ofstream(text) << std::string(4096, 'x');
    world_.barrier();
    EXPECT_THROW(geom::write_slabs(text, schema(), {}, world_), geom::Error);
}

}  // namespace
