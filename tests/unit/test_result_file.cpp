#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>

#include "core/error.hpp"
#include "output/output_path.hpp"
#include "output/result_file.hpp"

namespace {

using geom::AttributeValue;
using geom::ExitCode;
using geom::ResultReader;
using geom::Schema;
using geom::Slab;
using geom::ValueType;
namespace fs = std::filesystem;

using Shape = std::vector<std::int64_t>;

/// Every kind of axis and type, in the root, a group and a group in a group.
Schema sample_schema() {
    Schema schema;
    schema.scales = {
        {"", "layer", 4, {}, "decoder layer", {8, 9, 10, 11}},
        {"", "layer_b", 4, {}, "decoder layer", {8, 9, 10, 11}},
        {"", "head", 3, {}, "query head", {}},
        {"spectra", "family", 3, {"q_proj", "gate_proj", "naïve"}, "matrix", {}},
        {"spectra", "index_q_proj", 5, {}, "position, largest first", {}},
        {"variation", "gauge", 4, {"none", "rotation", "none_folded", "function"}, "what was aligned", {}},
        {"variation", "phase", 2, {"A", "tail"}, "", {}},
        {"legacy/variation", "family", 2, {"q", "k"}, "", {}},
        {"analysis", "top_k_signs", 2, {}, "number of leading eigenvalues", {2, 4}},
    };
    schema.variables = {
        {"gram", "gram", {"layer", "layer_b", "head"}, ValueType::f64, "inner product of operators", "1", ""},
        {"spectra", "eff_rank", {"family", "layer"}, ValueType::f64, "effective rank", "1", "a zero matrix has none"},
        {"spectra", "singular_values_q_proj", {"layer", "index_q_proj"}, ValueType::f64, "singular values", "1", ""},
        {"spectra", "cross_gram", {"layer", "head"}, ValueType::f32, "in single precision", "1", ""},
        {"variation", "residual", {"gauge", "layer"}, ValueType::f64, "distance to the next layer", "1", ""},
        {"variation", "layer_phase", {"layer"}, ValueType::i32, "index into phase", "1", ""},
        {"variation", "by_phase", {"phase"}, ValueType::f64, "mean of a phase", "1", ""},
        {"legacy/variation", "residual", {"family"}, ValueType::f32, "as the scripts define it", "1", ""},
        {"analysis", "sign_agreement", {"top_k_signs", "layer"}, ValueType::f64, "share of equal signs", "1", ""},
        {"analysis", "anchor", {}, ValueType::i32, "anchor layer", "1", ""},
        {"analysis", "mean_cos_to_anchor", {}, ValueType::f64, "mean cosine", "1", ""},
    };
    return schema;
}

std::vector<geom::Attribute> sample_attributes() {
    return {{"", "title", "a sample"},
            {"", "model", "Größe/模型"},
            {"", "revision", ""},
            {"", "seed", std::int64_t{1} << 40},
            {"", "config", std::string(100'000, 'x')},  // longer than an object header may be
            {"", "measures", std::vector<std::string>{"gram", "spectra"}},
            {"", "devices", std::vector<std::string>{}},
            {"run", "seconds_total", 1.5},
            {"run/io", "bytes_read", std::int64_t{123}},
            {"analysis/anchor", "verdict", "STRONG"}};
}

template <class T>
Slab slab_of(std::int64_t variable, Shape start, Shape count, const std::vector<T>& values) {
    Slab slab{variable, std::move(start), std::move(count), std::vector<std::byte>(values.size() * sizeof(T))};
    std::memcpy(slab.data.data(), values.data(), slab.data.size());
    return slab;
}

/// Element i of variable v is 100 v + i.
std::vector<Slab> sample_slabs(const Schema& schema) {
    std::vector<Slab> slabs;
    for (std::int64_t v = 0; v < std::ssize(schema.variables); ++v) {
        const auto& variable = schema.variables[static_cast<std::size_t>(v)];
        const Shape shape = schema.shape_of(variable);
        const auto n = Slab{v, {}, shape, {}}.elements();
        std::vector<double> values(static_cast<std::size_t>(n));
        std::iota(values.begin(), values.end(), 100.0 * static_cast<double>(v));
        const Shape start(shape.size(), 0);
        switch (variable.type) {
            case ValueType::f64:
                slabs.push_back(slab_of(v, start, shape, values));
                break;
            case ValueType::f32:
                slabs.push_back(slab_of(v, start, shape, std::vector<float>(values.begin(), values.end())));
                break;
            case ValueType::i32:
                slabs.push_back(slab_of(v, start, shape, std::vector<std::int32_t>(values.begin(), values.end())));
                break;
        }
    }
    return slabs;
}

/// The exit code and message of what f throws.
template <class F>
std::pair<ExitCode, std::string> failure_of(F&& f) {
    try {
        f();
    } catch (const geom::Error& error) {
        return {error.code(), error.what()};
    }
    return {ExitCode::done, "nothing was thrown"};
}

class ResultFile : public testing::Test {
protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "geom_result_XXXXXX").string();
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
        file_ = folder_ / "sample.geom.h5";
    }
    void TearDown() override { fs::remove_all(folder_); }

    void write_sample(const fs::path& file) {
        const Schema schema = sample_schema();
        const auto temporary = geom::temporary_name(file);
        geom::create_skeleton(temporary, schema, sample_attributes());
        geom::append(temporary, schema, sample_slabs(schema), {{"", "ranks", std::int64_t{3}}});
        geom::verify(temporary, schema, geom::checksums_of(schema, sample_slabs(schema)));
        geom::append(temporary, schema, {}, {geom::complete_attribute()});
        geom::verify_structure(temporary, schema, sample_attributes());
        geom::give_name(temporary, file, true);
    }

    /// Files in the folder: a failure must leave none.
    std::int64_t files_left() const { return std::distance(fs::directory_iterator(folder_), fs::directory_iterator()); }

    fs::path folder_;
    fs::path file_;
};

TEST_F(ResultFile, gives_back_every_number_that_was_written) {
    write_sample(file_);
    EXPECT_EQ(files_left(), 1) << "the temporary file is renamed";
    const Schema schema = sample_schema();
    const ResultReader reader(file_);
    for (std::size_t v = 0; v < schema.variables.size(); ++v) {
        const auto path = schema.variables[v].path();
        ASSERT_TRUE(reader.has(path)) << path;
        EXPECT_EQ(reader.shape(path), schema.shape_of(schema.variables[v])) << path;
        const auto values = reader.read(path);
        for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], 100.0 * double(v) + double(i)) << path;
    }
    EXPECT_EQ(reader.read("layer"), (std::vector<double>{8, 9, 10, 11}));
    EXPECT_EQ(reader.read("head"), (std::vector<double>{0, 1, 2}));
    EXPECT_EQ(reader.labels("spectra/family"), (std::vector<std::string>{"q_proj", "gate_proj", "naïve"}));
    EXPECT_EQ(reader.labels("legacy/variation/family"), (std::vector<std::string>{"q", "k"}));
    for (const char* path : {"nothing", "gram", "gram/nothing", "nothing/gram", "gram/gram/gram"}) {
        EXPECT_FALSE(reader.has(path)) << path;
    }
}

TEST_F(ResultFile, gives_back_its_attributes) {
    write_sample(file_);
    const ResultReader reader(file_);
    EXPECT_EQ(reader.text_attribute("", "model"), "Größe/模型");
    EXPECT_EQ(reader.text_attribute("", "revision"), "");
    EXPECT_EQ(reader.text_attribute("", "config").size(), 100'000U);
    EXPECT_EQ(reader.number_attribute("", "seed"), std::ldexp(1.0, 40));
    EXPECT_EQ(reader.number_attribute("", "ranks"), 3);
    EXPECT_EQ(reader.number_attribute("", "complete"), 1);
    EXPECT_EQ(reader.number_attribute("run", "seconds_total"), 1.5);
    EXPECT_EQ(reader.number_attribute("run/io", "bytes_read"), 123);
    EXPECT_EQ(reader.texts_attribute("", "measures"), (std::vector<std::string>{"gram", "spectra"}));
    EXPECT_TRUE(reader.texts_attribute("", "devices").empty());
    EXPECT_EQ(reader.text_attribute("spectra/eff_rank", "missing"), "a zero matrix has none");
    EXPECT_EQ(reader.text_attribute("analysis/anchor", "verdict"), "STRONG");
    EXPECT_FALSE(reader.has_attribute("gram/gram", "missing"));
    EXPECT_EQ(failure_of([&] { reader.text_attribute("", "nothing"); }).first, ExitCode::input);
    EXPECT_EQ(failure_of([&] { reader.text_attribute("", "ranks"); }).first, ExitCode::input);
    EXPECT_EQ(failure_of([&] { reader.number_attribute("", "model"); }).first, ExitCode::input);
    EXPECT_EQ(failure_of([&] { reader.read("nothing"); }).first, ExitCode::input);
}

TEST_F(ResultFile, declares_the_schema_it_was_made_from) {
    write_sample(file_);
    const Schema written = sample_schema(), found = ResultReader(file_).schema();
    ASSERT_EQ(found.scales.size(), written.scales.size());
    for (const geom::Scale& scale : written.scales) {
        const auto same = std::find_if(found.scales.begin(), found.scales.end(),
                                       [&](const geom::Scale& other) { return other.path() == scale.path(); });
        ASSERT_NE(same, found.scales.end()) << scale.path();
        geom::Scale expected = scale;
        if (scale.values.empty() && scale.labels.empty()) {  // 0, 1, ... are written out
            expected.values.resize(static_cast<std::size_t>(scale.length));
            std::iota(expected.values.begin(), expected.values.end(), 0);
        }
        EXPECT_TRUE(*same == expected) << scale.path();
    }
    ASSERT_EQ(found.variables.size(), written.variables.size());
    for (const geom::Variable& variable : written.variables) {
        ASSERT_GE(found.find(variable.path()), 0) << variable.path();
        const auto& same = found.variables[static_cast<std::size_t>(found.find(variable.path()))];
        EXPECT_EQ(same.dims, variable.dims) << variable.path();
        EXPECT_EQ(same.type, variable.type) << variable.path();
        EXPECT_EQ(same.long_name, variable.long_name);
        EXPECT_EQ(same.units, variable.units);
        EXPECT_EQ(same.missing, variable.missing);
        EXPECT_EQ(found.shape_of(same), written.shape_of(variable)) << variable.path();
    }
}

TEST_F(ResultFile, gives_back_any_box_of_a_variable) {
    write_sample(file_);
    const ResultReader reader(file_);
    const auto gram = reader.read("gram/gram");  // 4 x 4 x 3, elements 0, 1, ...
    for (const auto& [start, count] : std::vector<std::pair<Shape, Shape>>{
             {{0, 0, 0}, {4, 4, 3}}, {{3, 3, 2}, {1, 1, 1}}, {{1, 0, 1}, {2, 3, 2}}, {{0, 2, 0}, {4, 1, 3}}}) {
        std::vector<double> wanted;
        for (std::int64_t i = start[0]; i < start[0] + count[0]; ++i) {
            for (std::int64_t j = start[1]; j < start[1] + count[1]; ++j) {
                for (std::int64_t k = start[2]; k < start[2] + count[2]; ++k)
                    wanted.push_back(gram[static_cast<std::size_t>((i * 4 + j) * 3 + k)]);
            }
        }
        EXPECT_EQ(reader.read("gram/gram", start, count), wanted);
        std::vector<double> raw(wanted.size());
        reader.read_bytes("gram/gram", ValueType::f64, start, count, std::as_writable_bytes(std::span(raw)));
        EXPECT_EQ(raw, wanted);
    }
    EXPECT_EQ(reader.read("spectra/cross_gram", {2, 1}, {1, 2}), (std::vector<double>{307, 308})) << "f32 as f64";
    EXPECT_EQ(reader.read("variation/layer_phase", {1}, {2}), (std::vector<double>{501, 502})) << "i32 as f64";
    EXPECT_EQ(reader.read("analysis/anchor", {}, {}), std::vector<double>{900}) << "a scalar";
    std::vector<std::int32_t> phases(2);
    reader.read_bytes("variation/layer_phase", ValueType::i32, {1}, {2}, std::as_writable_bytes(std::span(phases)));
    EXPECT_EQ(phases, (std::vector<std::int32_t>{501, 502}));
}

TEST_F(ResultFile, refuses_a_box_that_is_not_in_the_variable) {
    write_sample(file_);
    const ResultReader reader(file_);
    for (const auto& [start, count] : std::vector<std::pair<Shape, Shape>>{
             {{0, 0, 0}, {5, 1, 1}}, {{4, 0, 0}, {1, 1, 1}}, {{0, -1, 0}, {1, 1, 1}}, {{0, 0}, {1, 1}}}) {
        const auto [code, text] = failure_of([&] { reader.read("gram/gram", start, count); });
        EXPECT_EQ(code, ExitCode::internal) << text;
        EXPECT_NE(text.find("gram/gram"), std::string::npos) << text;
    }
    EXPECT_EQ(failure_of([&] { reader.read("gram/nothing", {0}, {1}); }).first, ExitCode::input);
}

TEST_F(ResultFile, is_added_to_while_it_is_read) {
    const Schema schema = sample_schema();
    geom::create_skeleton(file_, schema, {});
    const auto variable = schema.index_of("variation/residual");
    {
        geom::ResultEditor editor(file_);
        editor.write(schema, slab_of<double>(variable, {1, 0}, {1, 4}, {1, 2, 3, 4}));
        EXPECT_EQ(editor.reader().read("variation/residual", {1, 1}, {1, 2}), (std::vector<double>{2, 3}));
        editor.write(schema, slab_of<double>(variable, {2, 3}, {1, 1}, {5}));
        editor.set({"variation", "note", "added"});
        EXPECT_EQ(editor.reader().text_attribute("variation", "note"), "added");
        EXPECT_NE(failure_of([&] {
                      editor.write(schema, slab_of<double>(variable, {4, 0}, {1, 1}, {5}));
                  }).first,
                  ExitCode::done);
        editor.close();
    }
    const ResultReader reader(file_, true);
    EXPECT_EQ(reader.read("variation/residual", {1, 0}, {1, 4}), (std::vector<double>{1, 2, 3, 4}));
    EXPECT_EQ(reader.read("variation/residual", {2, 3}, {1, 1}), std::vector<double>{5});
    EXPECT_EQ(reader.text_attribute("variation", "note"), "added");
    EXPECT_EQ(failure_of([&] { geom::ResultEditor(folder_ / "none.h5"); }).first, ExitCode::output);
}

TEST_F(ResultFile, keeps_NaN_infinity_and_signed_zero) {
    const Schema schema = sample_schema();
    const double inf = std::numeric_limits<double>::infinity();
    geom::create_skeleton(file_, schema, {});
    const auto slab =
        slab_of<double>(schema.index_of("spectra/eff_rank"), {1, 0}, {1, 4}, {std::nan(""), inf, -0.0, 5e-324});
    geom::append(file_, schema, {slab}, {});
    geom::verify(file_, schema, geom::checksums_of(schema, {&slab, 1}));
    const auto values = ResultReader(file_, true).read("spectra/eff_rank");
    EXPECT_TRUE(std::isnan(values[4]));
    EXPECT_EQ(values[5], inf);
    EXPECT_TRUE(std::signbit(values[6]));
    EXPECT_EQ(values[7], 5e-324);
}

TEST_F(ResultFile, holds_axes_of_no_length) {
    Schema schema;
    schema.scales = {{"", "pair", 0, {}, "", {}}, {"", "layer", 1, {}, "", {}}};
    schema.variables = {{"variation", "residual", {"layer", "pair"}, ValueType::f64, "", "1", ""}};
    geom::create_skeleton(file_, schema, {});
    geom::append(file_, schema, {Slab{0, {0, 0}, {1, 0}, {}}}, {});
    EXPECT_EQ(ResultReader(file_, true).shape("variation/residual"), (Shape{1, 0}));
    EXPECT_TRUE(ResultReader(file_, true).read("variation/residual").empty());
}

TEST_F(ResultFile, takes_five_thousand_variables_of_one_scale) {
    Schema schema;
    schema.scales = {{"", "layer", 2, {}, "", {}}};
    for (int i = 0; i < 5000; ++i) {
        schema.variables.push_back({"many", fmt::format("v{}", i), {"layer"}, ValueType::f64, "", "1", ""});
    }
    EXPECT_NO_THROW(geom::create_skeleton(file_, schema, {}));
}

TEST_F(ResultFile, replaces_an_attribute_that_is_written_again) {
    geom::create_skeleton(file_, sample_schema(), {{"", "note", "first"}});
    geom::append(file_, {}, {}, {{"", "note", std::int64_t{2}}});
    EXPECT_EQ(ResultReader(file_, true).number_attribute("", "note"), 2);
}

TEST_F(ResultFile, is_not_read_before_it_is_complete) {
    geom::create_skeleton(file_, sample_schema(), {});
    const auto [code, text] = failure_of([&] { ResultReader{file_}; });
    EXPECT_EQ(code, ExitCode::input);
    EXPECT_NE(text.find("not a complete"), std::string::npos) << text;
    EXPECT_NO_THROW(ResultReader(file_, true));
}

TEST_F(ResultFile, is_not_read_when_missing_or_not_hdf5) {
    auto [code, text] = failure_of([&] { ResultReader{file_}; });
    EXPECT_EQ(code, ExitCode::input);
    EXPECT_NE(text.find("No such file or directory"), std::string::npos) << text;
    std::ofstream(file_) << "plain text, long enough to be looked at for a signature";
    std::tie(code, text) = failure_of([&] { ResultReader{file_}; });
    EXPECT_EQ(code, ExitCode::input);
    EXPECT_NE(text.find("signature"), std::string::npos) << text;
    std::tie(code, text) = failure_of([&] { ResultReader{folder_}; });
    EXPECT_EQ(code, ExitCode::input);
}

TEST_F(ResultFile, notices_every_flipped_byte) {
    const Schema schema = sample_schema();
    const auto slabs = sample_slabs(schema);
    geom::create_skeleton(file_, schema, {});
    geom::append(file_, schema, slabs, {});
    auto changed = slabs;
    changed[0].data[17] ^= std::byte{1};
    const auto [code, text] = failure_of([&] { geom::verify(file_, schema, geom::checksums_of(schema, changed)); });
    EXPECT_EQ(code, ExitCode::output);
    EXPECT_NE(text.find("gram/gram differs in the box at [0, 0, 0]"), std::string::npos) << text;
    EXPECT_NO_THROW(geom::verify(file_, schema, geom::checksums_of(schema, slabs)));
}

TEST_F(ResultFile, checks_where_it_will_be_written) {
    EXPECT_NO_THROW(geom::check_output(file_, false));
    EXPECT_EQ(files_left(), 0);
    std::ofstream(file_) << "an earlier result";
    const auto [code, text] = failure_of([&] { geom::check_output(file_, false); });
    EXPECT_EQ(code, ExitCode::output);
    EXPECT_NE(text.find("--overwrite"), std::string::npos) << text;
    EXPECT_NO_THROW(geom::check_output(file_, true));
    EXPECT_EQ(fs::file_size(file_), 17U) << "checking must not touch the file";
    EXPECT_EQ(failure_of([&] { geom::check_output(folder_, true); }).first, ExitCode::output);
    EXPECT_NE(failure_of([&] { geom::check_output(folder_ / "no" / "a.h5", false); }).second.find("does not exist"),
              std::string::npos);
    EXPECT_NE(failure_of([&] { geom::check_output(file_ / "a.h5", false); }).second.find("not a folder"),
              std::string::npos);
}

TEST_F(ResultFile, says_that_a_folder_is_not_writable) {
    if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
    ::chmod(folder_.c_str(), 0500);
    const auto [code, text] = failure_of([&] { geom::check_output(file_, false); });
    ::chmod(folder_.c_str(), 0700);
    EXPECT_EQ(code, ExitCode::output);
    EXPECT_NE(text.find("Permission denied"), std::string::npos) << text;
}

TEST_F(ResultFile, says_how_much_space_is_missing_and_leaves_nothing) {
    Schema schema;
    // 2^40 elements: more than any disk this runs on has free.
    schema.scales = {{"", "token", 1 << 20, {}, "", {}}, {"", "hidden", 1 << 20, {}, "", {}}};
    schema.variables = {{"residual", "hidden_states", {"token", "hidden"}, ValueType::f64, "", "1", ""}};
    const auto [code, text] = failure_of([&] { geom::create_skeleton(file_, schema, {}); });
    EXPECT_EQ(code, ExitCode::output);
    if (text.find("File too large") == std::string::npos) {  // some file systems end before 8 TiB
        EXPECT_NE(text.find("no space left on /"), std::string::npos) << text;
        EXPECT_NE(text.find(" free"), std::string::npos) << text;
    }
    EXPECT_EQ(files_left(), 0);
}

TEST_F(ResultFile, makes_a_sample_for_other_readers) {
    // tests/e2e/test_result_file.py names the folder and opens what lies there.
    const char* folder = std::getenv("GEOM_SAMPLE_FOLDER");
    if (folder == nullptr) GTEST_SKIP() << "GEOM_SAMPLE_FOLDER is not set";
    write_sample(fs::path(folder) / "sample.geom.h5");
}

}  // namespace
