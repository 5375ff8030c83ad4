#include "model/calibration.hpp"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <hdf5_hl.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "checkpoint/synthetic.hpp"
#include "model/token_ids.hpp"
#include "model/tokenizer.hpp"
#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

namespace geom {
namespace {

using test::error_of;
using test::says;
using Ids = std::vector<std::int32_t>;

const std::filesystem::path golden = std::filesystem::path(GEOM_TEST_DATA) / "golden";
constexpr std::int64_t vocabulary = 1000;

Checkpoint open_golden(const std::string& model) { return Checkpoint::open((golden / model).string(), "", ""); }

class Calibration : public ::testing::Test {
protected:
    std::filesystem::path file(const std::string& name, const std::string& content) {
        std::ofstream(folder_ / name, std::ios::binary) << content;
        return folder_ / name;
    }

    /// An HDF5 file with datasets of these names, types and shapes, all holding `values`.
    struct Stored {
        const char* name;
        std::int64_t type;
        std::vector<hsize_t> shape;
    };
    std::filesystem::path hdf5(const std::vector<Stored>& datasets, const std::vector<std::int32_t>& values) {
        const std::filesystem::path path = folder_ / "ids.h5";
        const hid_t opened = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        const hid_t parents = H5Pcreate(H5P_LINK_CREATE);
        H5Pset_create_intermediate_group(parents, 1);
        for (const Stored& stored : datasets) {
            const hid_t space = H5Screate_simple(static_cast<int>(stored.shape.size()), stored.shape.data(), nullptr);
            const hid_t set = H5Dcreate2(opened, stored.name, stored.type, space, parents, H5P_DEFAULT, H5P_DEFAULT);
            H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
            H5Dclose(set);
            H5Sclose(space);
        }
        H5Pclose(parents);
        H5Fclose(opened);
        return path;
    }

    std::string refusal_of_ids(const std::string& content) {
        return error_of([&] { read_token_ids(file("ids.txt", content), vocabulary); });
    }

private:
    test::TemporaryFolder folder_;
};

TEST_F(Calibration, takes_a_text_as_it_stands) {
    const std::string text = "One prompt.\n\nAnother, \u00e9t\u00e9.\n\n\n  A third.\r\n";
    for (const char* model : {"qwen3-tiny", "llama-tiny"}) {
        const CalibrationTokens tokens = read_calibration(open_golden(model), {file("a.txt", text), {}, 2048});
        EXPECT_EQ(tokens.ids, Tokenizer::read(golden / model / "tokenizer.json").encode(text));
        EXPECT_FALSE(tokens.truncated);
        EXPECT_TRUE(tokens.source.ends_with("a.txt"));
    }
}

TEST_F(Calibration, is_cut_at_the_most_tokens_the_begin_token_among_them) {
    const Checkpoint llama = open_golden("llama-tiny");
    const auto text = file("a.txt", "Some words, and some more.");
    const Ids all = read_calibration(llama, {text, {}, 2048}).ids;
    for (const std::int64_t most : {std::ssize(all), std::ssize(all) - 1, std::ptrdiff_t{1}}) {
        const CalibrationTokens tokens = read_calibration(llama, {text, {}, most});
        EXPECT_EQ(tokens.ids, Ids(all.begin(), all.begin() + most));
        EXPECT_EQ(tokens.truncated, most < std::ssize(all));
    }
    EXPECT_EQ(read_calibration(llama, {text, {}, 1}).ids, Ids{1021});
    const CalibrationTokens ids = read_calibration(llama, {{}, file("ids.txt", "5\n6\n7\n"), 2});
    EXPECT_EQ(ids.ids, (Ids{5, 6}));
    EXPECT_TRUE(ids.truncated);
    error_of([&] { read_calibration(llama, {text, {}, 0}); }, ExitCode::usage);
}

TEST_F(Calibration, may_be_one_token_and_not_none) {
    const Checkpoint qwen = open_golden("qwen3-tiny");
    EXPECT_EQ(read_calibration(qwen, {file("a.txt", "a"), {}, 2048}).ids.size(), 1U);
    for (const char* blank : {"", " \n\n\t \u3000\n"}) {
        EXPECT_TRUE(says(error_of([&] {
                             read_calibration(qwen, {file("a.txt", blank), {}, 2048});
                         }),
                         "a.txt", "no text"));
    }
}

TEST_F(Calibration, names_the_file_and_the_byte_or_the_id_that_is_wrong) {
    const Checkpoint qwen = open_golden("qwen3-tiny");
    EXPECT_TRUE(says(error_of([&] { read_calibration(qwen, {file("a.txt", "caf\xe9 "), {}, 9}); }), "a.txt: byte 3:"));
    EXPECT_TRUE(says(error_of([&] { read_calibration(qwen, {"/nowhere/a.txt", {}, 9}); }), "/nowhere/a.txt"));
    EXPECT_TRUE(says(error_of([&] {
                         read_calibration(qwen, {{}, file("ids.txt", "1\n1024\n"), 1});
                     }),
                     "ids.txt: line 2", "1024"));
}

TEST_F(Calibration, has_a_text_of_its_own_that_is_long_enough_for_every_tokenizer) {
    const std::string_view text = default_text();
    EXPECT_GT(text.size(), 12'000U);
    EXPECT_EQ(text.find("\n\n\n"), std::string_view::npos);
    for (const char* model : {"qwen3-tiny", "qwen2-tiny", "llama-tiny", "qwen3moe-tiny", "qwen3-trained"}) {
        const CalibrationTokens tokens = read_calibration(open_golden(model), {});
        EXPECT_EQ(tokens.ids.size(), 2048U);
        EXPECT_TRUE(tokens.truncated);
    }
    // What a tokenizer of 150,000 tokens makes: about one token for a word, a number or a sign.
    const auto is_gap = [](char c) { return c == ' ' || c == '\n'; };
    EXPECT_GT(std::count_if(text.begin(), text.end(), is_gap), 2048);
}

TEST_F(Calibration, draws_the_tokens_of_a_synthetic_model) {
    const Checkpoint model = Checkpoint::open("synth:tiny?seed=7", "", "");
    const CalibrationTokens tokens = read_calibration(model, {{}, {}, 300});
    EXPECT_EQ(tokens.ids, synthetic_tokens(7, model.config().vocabulary, 300));
    EXPECT_FALSE(tokens.truncated);
    EXPECT_EQ(read_calibration(model, {{}, file("ids.txt", "3"), 300}).ids, Ids{3});
    EXPECT_TRUE(says(error_of([&] { read_calibration(model, {file("a.txt", "a"), {}, 9}); }), "--token-ids FILE"));
}

TEST_F(Calibration, reads_ids_from_lines) {
    EXPECT_EQ(read_token_ids(file("a", "0\n 12\t\r\n\n999"), vocabulary), (Ids{0, 12, 999}));
    EXPECT_TRUE(says(refusal_of_ids("1\n2 3\n"), "ids.txt: line 2", "'2 3' is no integer"));
    EXPECT_TRUE(says(refusal_of_ids("1\n\n0x3\n"), "ids.txt: line 3"));
    EXPECT_TRUE(says(refusal_of_ids("1.5"), "ids.txt: line 1"));
    EXPECT_TRUE(says(refusal_of_ids("99999999999999999999"), "ids.txt: line 1"));
    EXPECT_TRUE(says(refusal_of_ids("7\n1000\n"), "ids.txt: line 2", "1000"));
    EXPECT_TRUE(says(refusal_of_ids("-1"), "ids.txt: line 1", "-1"));
    EXPECT_TRUE(says(refusal_of_ids("\n \n"), "ids.txt", "no token ids"));
}

TEST_F(Calibration, reads_ids_from_hdf5_by_name_or_because_there_is_one_dataset) {
    const std::int64_t i32 = H5T_STD_I32LE, f64 = H5T_IEEE_F64LE;
    const Ids ids{4, 5, 6};
    const auto read = [&](const std::vector<Stored>& datasets) {
        return read_token_ids(hdf5(datasets, ids), vocabulary);
    };
    EXPECT_EQ(read({{"anything", H5T_STD_U64BE, {3}}, {"other", f64, {3}}, {"more", i32, {3, 1}}}), ids);
    EXPECT_EQ(read({{"a", i32, {3}}, {"residual/token_ids", H5T_STD_I16LE, {3}}, {"b_token_ids", i32, {3}}}), ids);
    const auto refusal = [&](const std::vector<Stored>& datasets) { return error_of([&] { read(datasets); }); };
    EXPECT_TRUE(says(refusal({{"a", i32, {3}}, {"b", i32, {3}}}), "ids.h5", "2 one-dimensional", "token_ids"));
    EXPECT_TRUE(says(refusal({{"a/token_ids", i32, {3}}, {"b/token_ids", i32, {3}}}), "ids.h5", "2 one-dimensional"));
    EXPECT_TRUE(says(refusal({{"token_ids", f64, {3}}}), "ids.h5", "0 one-dimensional"));
    EXPECT_TRUE(says(error_of([&] {
                         read_token_ids(hdf5({{"token_ids", i32, {3}}}, {1, -7, 2}), vocabulary);
                     }),
                     "ids.h5: token_ids[1]", "-7"));
    EXPECT_TRUE(says(error_of([&] { read_token_ids(file("cut.h5", "\x89HDF\r\n\x1a\nxyz"), vocabulary); }), "cut.h5"));
}

}  // namespace
}  // namespace geom
