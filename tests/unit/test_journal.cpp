#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/error.hpp"
#include "output/journal.hpp"
#include "output/journal_queue.hpp"

namespace {

using geom::Identity;
using geom::JournalContents;
using geom::JournalWriter;
using geom::Schema;
using geom::Slab;
using geom::Unit;
using geom::UnitResult;
using geom::ValueType;
namespace fs = std::filesystem;

const Identity identity{{"model", "synth:tiny"}, {"commit", "abc"}, {"options", "top_k=8"}};

Schema schema() {
    Schema schema;
    schema.scales = {{"", "layer", 6, {}, "", {}}, {"", "head", 2, {}, "", {}}};
    schema.variables = {{"heads", "eff_rank", {"layer", "head"}, ValueType::f64, "", "1", ""},
                        {"match", "assignment", {"layer"}, ValueType::i32, "", "1", ""},
                        {"analysis", "anchor", {}, ValueType::f32, "", "1", ""}};
    return schema;
}

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

/// The result of unit (heads, layer): numbers that tell which unit they are of.
UnitResult result_of(std::int64_t layer) {
    const double value = 1.5 * static_cast<double>(layer) + 0.25;
    return {{"heads", geom::UnitOf::layer, layer, 0},
            {Slab{0, {layer, 0}, {1, 2}, bytes_of<double>({value, -value})},
             Slab{1, {layer}, {1}, bytes_of<std::int32_t>({static_cast<std::int32_t>(layer) - 3})},
             Slab{2, {}, {}, bytes_of<float>({static_cast<float>(layer)})}},
            {{"q_proj", layer, layer + 2, 7}, {"k_proj", 0, layer, UINT64_MAX}}};
}

bool equal(const UnitResult& a, const UnitResult& b) {
    return a.unit == b.unit && a.read == b.read &&
           std::equal(a.slabs.begin(), a.slabs.end(), b.slabs.begin(), b.slabs.end(), [](const Slab& x, const Slab& y) {
               return x.variable == y.variable && x.start == y.start && x.count == y.count && x.data == y.data;
           });
}

std::string content(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

void replace(const fs::path& file, const std::string& bytes) {
    std::ofstream(file, std::ios::binary | std::ios::trunc).write(bytes.data(), std::ssize(bytes));
}

class Journal : public testing::Test {
protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "geom_journal_XXXXXX").string();
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        root_ = pattern;
        folder_ = geom::journal_folder(root_ / "result.h5");
    }
    void TearDown() override { fs::remove_all(root_); }

    fs::path write(const std::vector<std::int64_t>& layers, int rank, const Identity& as = identity) {
        JournalWriter writer(folder_, as, rank);
        for (const auto layer : layers) writer.append(result_of(layer), schema());
        return writer.file();
    }

    /// The layers of the units read; every one of them has to be what was written.
    std::vector<std::int64_t> read(const Schema& as = schema(), const Identity& wanted = identity) {
        std::vector<std::int64_t> layers;
        contents_ = geom::read_journal(folder_, wanted, as, [&](UnitResult&& result) {
            EXPECT_TRUE(equal(result, result_of(result.unit.first))) << "unit " << result.unit.first;
            layers.push_back(result.unit.first);
        });
        EXPECT_EQ(contents_.units, std::ssize(layers));
        return layers;
    }

    using Layers = std::vector<std::int64_t>;
    fs::path root_;
    fs::path folder_;
    JournalContents contents_;
};

TEST_F(Journal, gives_back_the_units_of_all_ranks_in_order) {
    EXPECT_EQ(folder_.filename(), "result.h5.journal");
    write({4, 5}, 10);
    write({2, 0}, 1);
    write({3}, 0);
    EXPECT_EQ(read(), (Layers{3, 2, 0, 4, 5}));
    EXPECT_EQ(contents_.files, 3);
    EXPECT_EQ(contents_.torn_files, 0);
    EXPECT_TRUE(contents_.unreadable.empty());
}

TEST_F(Journal, has_a_unit_on_disk_before_it_takes_the_next_one) {
    const Schema declared = schema();
    geom::JournalQueue queue(folder_, identity, 0, declared);
    for (std::int64_t layer = 0; layer < 6; ++layer) {
        queue.add(result_of(layer));
        EXPECT_GE(std::ssize(read()), layer) << "a kill now loses one unit at most";
    }
    queue.flush();
    EXPECT_EQ(read(), (Layers{0, 1, 2, 3, 4, 5}));
}

TEST_F(Journal, is_empty_when_there_is_none) {
    EXPECT_TRUE(read().empty());
    write({}, 0);
    EXPECT_TRUE(read().empty());
    EXPECT_EQ(contents_.files, 1);
}

TEST_F(Journal, never_touches_an_older_file) {
    std::vector<fs::path> files;
    for (std::int64_t i = 0; i < 12; ++i) files.push_back(write({i % 6}, 3));
    for (std::size_t i = 0; i < files.size(); ++i) EXPECT_EQ(files[i].filename(), "rank-00003." + std::to_string(i));
    EXPECT_EQ(read(), (Layers{0, 1, 2, 3, 4, 5})) << "in order of age: .10 comes after .9";
    EXPECT_EQ(contents_.repeated, 6);
}

TEST_F(Journal, keeps_the_first_of_a_unit_that_is_there_twice) {
    auto other = result_of(2);
    other.slabs[0].data[0] = std::byte{42};
    write({1, 2}, 0);
    JournalWriter(folder_, identity, 1).append(other, schema());
    EXPECT_EQ(read(), (Layers{1, 2}));
    EXPECT_EQ(contents_.repeated, 1);
}

TEST_F(Journal, cut_at_any_length_gives_the_first_units) {
    const auto file = write({0, 1, 2}, 0);
    const std::string whole = content(file);
    fs::resize_file(file, whole.size() - 1);
    EXPECT_EQ(read(), (Layers{0, 1}));
    std::size_t more = 2;  // units that a longer file gave
    for (std::size_t length = whole.size() - 1; length > 0; --length) {
        fs::resize_file(file, length);
        const auto layers = read();
        ASSERT_TRUE(layers == Layers{} || layers == Layers{0} || layers == (Layers{0, 1})) << length;
        ASSERT_LE(layers.size(), more) << length;
        more = layers.size();
    }
    EXPECT_EQ(more, 0U);
}

TEST_F(Journal, with_any_bit_flipped_never_gives_a_wrong_unit) {
    const auto file = write({0, 1, 2}, 0);
    const std::string whole = content(file);
    std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
    const auto put = [&](std::size_t at, int byte) {
        stream.seekp(static_cast<std::streamoff>(at));
        stream.put(static_cast<char>(byte)).flush();
    };
    for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
        put(bit / 8, whole[bit / 8] ^ (1 << (bit % 8)));
        const auto layers = read();  // which compares every unit
        ASSERT_TRUE(layers == Layers{} || layers == Layers{0} || layers == (Layers{0, 1})) << bit;
        ASSERT_EQ(contents_.unreadable.size() + static_cast<std::size_t>(contents_.torn_files), 1U) << bit;
        put(bit / 8, whole[bit / 8]);
    }
    EXPECT_EQ(read(), (Layers{0, 1, 2}));
}

TEST_F(Journal, reads_the_other_files_when_one_is_damaged) {
    const auto head = write({0}, 0), tail = write({1, 2}, 1);
    write({3}, 2);
    replace(head, "not a journal");
    replace(tail, content(tail).substr(0, content(tail).size() - 1));
    EXPECT_EQ(read(), (Layers{1, 3}));
    ASSERT_EQ(contents_.unreadable.size(), 1U);
    EXPECT_NE(contents_.unreadable[0].find("rank-00000.0"), std::string::npos);
    EXPECT_EQ(contents_.torn_files, 1);
}

TEST_F(Journal, of_another_run_says_what_differs_and_gives_nothing) {
    write({0}, 0);
    write({1}, 1, {{"model", "synth:tiny"}, {"commit", "def"}, {"dtype", "f32"}});
    EXPECT_TRUE(read().empty());
    ASSERT_EQ(contents_.differences.size(), 3U);
    EXPECT_EQ(contents_.differences[0].key, "commit");
    EXPECT_EQ(contents_.differences[0].recorded, "def");
    EXPECT_EQ(contents_.differences[0].wanted, "abc");
    EXPECT_EQ(contents_.differences[1].key, "dtype");
    EXPECT_EQ(contents_.differences[1].wanted, "");
    EXPECT_EQ(contents_.differences[2].key, "options");
    EXPECT_EQ(contents_.differences[2].recorded, "");
}

TEST_F(Journal, follows_its_variables_into_a_schema_that_grew) {
    write({0, 1}, 0);
    Schema grown = schema();
    grown.variables.insert(grown.variables.begin(), {"gram", "gram", {"layer"}, ValueType::f64, "", "1", ""});
    std::int64_t units = 0;
    geom::read_journal(folder_, identity, grown, [&](UnitResult&& result) {
        EXPECT_EQ(result.slabs[0].variable, 1);
        EXPECT_EQ(result.slabs[2].variable, 3);
        ++units;
    });
    EXPECT_EQ(units, 2);
}

TEST_F(Journal, leaves_out_units_that_the_schema_has_no_place_for) {
    write({0, 1, 5}, 0);
    Schema smaller = schema();
    smaller.scales[0].length = 5;
    EXPECT_EQ(read(smaller), (Layers{0, 1}));
    EXPECT_EQ(contents_.foreign.size(), 1U);
    Schema other_type = schema();
    other_type.variables[1].type = ValueType::f32;
    EXPECT_TRUE(read(other_type).empty());
    Schema without = schema();
    without.variables.pop_back();
    EXPECT_TRUE(read(without).empty());
    EXPECT_EQ(contents_.foreign.size(), 3U);
    EXPECT_EQ(contents_.torn_files, 0);
}

TEST_F(Journal, takes_back_a_record_that_the_disk_has_no_room_for) {
    JournalWriter writer(folder_, identity, 0);
    writer.append(result_of(0), schema());
    const auto size = fs::file_size(writer.file());
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit little{size + 10, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &little), 0);
    try {
        writer.append(result_of(1), schema());
        ADD_FAILURE() << "nothing was thrown";
    } catch (const geom::Error& error) {
        EXPECT_EQ(error.code(), geom::ExitCode::output);
        EXPECT_NE(std::string(error.what()).find("File too large"), std::string::npos) << error.what();
    }
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(fs::file_size(writer.file()), size);
    writer.append(result_of(2), schema());
    EXPECT_EQ(read(), (Layers{0, 2}));
    EXPECT_EQ(contents_.torn_files, 0);
}

TEST_F(Journal, refuses_a_slab_that_does_not_fit) {
    JournalWriter writer(folder_, identity, 0);
    auto wrong = result_of(0);
    wrong.slabs[0].data.pop_back();
    EXPECT_THROW(writer.append(wrong, schema()), geom::Error);
    writer.append(result_of(1), schema());
    EXPECT_EQ(read(), Layers{1});
}

TEST_F(Journal, cannot_be_made_where_there_is_no_folder) {
    EXPECT_THROW(JournalWriter(root_ / "no" / "result.journal", identity, 0), geom::Error);
    replace(folder_, "a file");
    EXPECT_THROW(JournalWriter(folder_, identity, 0), geom::Error);
    EXPECT_THROW(read(), geom::Error);
}

TEST_F(Journal, is_removed_but_nothing_else_is) {
    geom::remove_journal(folder_);  // none there: nothing to do
    write({0}, 0);
    write({1}, 1);
    replace(folder_ / "notes.txt", "mine");
    geom::remove_journal(folder_);
    EXPECT_TRUE(fs::exists(folder_ / "notes.txt"));
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
    fs::remove(folder_ / "notes.txt");
    geom::remove_journal(folder_);
    EXPECT_FALSE(fs::exists(folder_));
}

}  // namespace
