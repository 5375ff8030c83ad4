#include "checkpoint/catalogue.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "support/error_of.hpp"
#include "support/safetensors_writer.hpp"
#include "support/temporary_folder.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;
using geom::test::StoredTensor;
using geom::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

const fs::path golden = fs::path(GEOM_TEST_DATA) / "golden";
const std::string index_name = "model.safetensors.index.json";

StoredTensor bytes_named(const std::string& name) { return {name, "U8", {3}, name.substr(0, 1) + "xy"}; }

const test::Shards two = {{"a.safetensors", {bytes_named("p"), bytes_named("q")}},
                          {"b.safetensors", {bytes_named("r")}}};

std::string refusal(const fs::path& folder) {
    return error_of([&] { Catalogue::open(folder, folder, "hf download X"); });
}

std::string index_refusal(const std::string& text) {
    return error_of([&] { parse_shard_index(text, "index.json"); });
}

TEST(Catalogue, finds_the_tensors_of_a_single_file) {
    const Catalogue catalogue = Catalogue::open(golden / "llama-tiny", golden / "llama-tiny");
    ASSERT_EQ(catalogue.files().size(), 1U);
    EXPECT_EQ(catalogue.stamps()[0].bytes, static_cast<std::int64_t>(fs::file_size(catalogue.files()[0])));
    const TensorInfo* tensor = catalogue.find("model.layers.4.self_attn.q_proj.weight");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->dtype, DType::f32);
    EXPECT_EQ(tensor->shape, (std::vector<std::int64_t>{48, 48}));
    EXPECT_EQ(tensor->bytes, 48 * 48 * 4);
    EXPECT_EQ(catalogue.find("model.layers.5.self_attn.q_proj.weight"), nullptr);
    EXPECT_EQ(catalogue.find(""), nullptr);
}

TEST(Catalogue, finds_every_tensor_of_every_shard_and_sorts_them) {
    const Catalogue catalogue = Catalogue::open(golden / "qwen3-tiny", golden / "qwen3-tiny");
    EXPECT_EQ(catalogue.files().size(), 4U);
    EXPECT_EQ(catalogue.tensors().size(), 2U + 6U * 11U);
    EXPECT_TRUE(std::is_sorted(catalogue.tensors().begin(), catalogue.tensors().end(),
                               [](const auto& a, const auto& b) { return a.name < b.name; }));
    for (const TensorInfo& tensor : catalogue.tensors()) EXPECT_EQ(catalogue.find(tensor.name), &tensor);
}

TEST(Catalogue, points_at_the_bytes_that_were_written) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    const Catalogue catalogue = Catalogue::open(folder.path(), folder.path());
    for (const TensorInfo& tensor : catalogue.tensors()) {
        EXPECT_EQ(
            test::read_bytes(catalogue.files()[static_cast<std::size_t>(tensor.file)], tensor.offset, tensor.bytes),
            tensor.name + "xy");
    }
}

TEST(Catalogue, prefers_the_single_file_to_an_index) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    test::write_file(folder / "model.safetensors", test::safetensors_file({bytes_named("alone")}));
    EXPECT_EQ(Catalogue::open(folder.path(), folder.path()).tensors().size(), 1U);
}

TEST(Catalogue, names_all_missing_shards_at_once_and_what_to_do) {
    TemporaryFolder folder;
    fs::copy(golden / "qwen3-tiny", folder.path(), fs::copy_options::recursive);
    fs::remove(folder / "model-00002-of-00004.safetensors");
    fs::remove(folder / "model-00004-of-00004.safetensors");
    EXPECT_TRUE(says(refusal(folder.path()), folder.path().string(), "2 of the 4 shards",
                     "model-00002-of-00004.safetensors", "model-00004-of-00004.safetensors", "partial",
                     "hf download X"));
}

TEST(Catalogue, takes_a_link_that_leads_nowhere_for_a_missing_shard) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    fs::remove(folder / "b.safetensors");
    fs::create_symlink("blobs/none", folder / "b.safetensors");
    EXPECT_TRUE(says(refusal(folder.path()), "1 of the 2 shards", "b.safetensors"));
    fs::create_symlink("blobs/none", folder / "model.safetensors");
    EXPECT_TRUE(says(refusal(folder.path()), "model.safetensors", "leads nowhere"));
}

TEST(Catalogue, says_what_is_there_instead_of_safetensors) {
    TemporaryFolder folder;
    EXPECT_TRUE(
        says(refusal(folder.path()), "neither model.safetensors nor model.safetensors.index.json", "hf download X"));
    test::write_file(folder / "pytorch_model.bin", "x");
    EXPECT_TRUE(says(refusal(folder.path()), "pytorch_model.bin", "only safetensors are read"));
}

TEST(Catalogue, a_tensor_in_another_shard_than_the_index_says_is_an_error) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    test::Shards moved = two;
    moved[1].second.push_back(moved[0].second.back());
    moved[0].second.pop_back();
    test::write_file(folder / index_name, test::index_text(moved));
    EXPECT_TRUE(says(refusal(folder.path()), "a.safetensors", "holds tensor 'q'", "says it is in b.safetensors"));
}

TEST(Catalogue, a_tensor_the_shard_lacks_is_an_error) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    test::Shards more = two;
    more[0].second.push_back(bytes_named("s"));
    test::write_file(folder / index_name, test::index_text(more));
    EXPECT_TRUE(says(refusal(folder.path()), "a.safetensors", "lacks tensor 's'"));
}

TEST(Catalogue, a_tensor_the_index_does_not_name_is_an_error) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    test::Shards fewer = two;
    fewer[0].second.pop_back();
    test::write_file(folder / index_name, test::index_text(fewer));
    EXPECT_TRUE(says(refusal(folder.path()), "a.safetensors", "tensor 'q'", "does not name it"));
}

TEST(Catalogue, a_tensor_in_two_shards_is_an_error) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    test::Shards twice = two;
    twice[1].second.push_back(bytes_named("p"));
    test::write_file(folder / "b.safetensors", test::safetensors_file(twice[1].second));
    EXPECT_TRUE(says(refusal(folder.path()), "b.safetensors", "tensor 'p'", "a.safetensors"));
}

TEST(Catalogue, shard_names_with_a_path_are_refused) {
    for (const char* name : {"../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "..", "", ".safetensors",
                             "a.safetensors/../../b.safetensors", "a..safetensors", "a\\\\b.safetensors", "a.bin",
                             "a\\u0000.safetensors", "a\\n.safetensors", "~/../x.safetensors", ".a.safetensors"}) {
        EXPECT_TRUE(says(index_refusal(fmt::format(R"({{"weight_map":{{"t":"{}"}}}})", name)), "index.json",
                         "tensor 't'", "plain file name"))
            << name;
    }
    EXPECT_TRUE(says(index_refusal(fmt::format(R"({{"weight_map":{{"t":"{}.safetensors"}}}})", std::string(300, 'x'))),
                     "plain file name"));
}

TEST(Catalogue, an_index_without_a_proper_weight_map_is_refused) {
    EXPECT_TRUE(says(index_refusal("{}"), "'weight_map' is missing"));
    EXPECT_TRUE(says(index_refusal(R"({"weight_map":{}})"), "empty"));
    EXPECT_TRUE(says(index_refusal(R"({"weight_map":[1]})"), "is an array"));
    EXPECT_TRUE(says(index_refusal(R"({"weight_map":null})"), "missing"));
    EXPECT_TRUE(says(index_refusal(R"({"weight_map":{"t":1}})"), "tensor 't'", "is a number"));
    EXPECT_TRUE(says(index_refusal(R"({"weight_map":{"t":"a.safetensors","t":"b.safetensors"}})"), "'t' stands twice"));
    EXPECT_TRUE(says(index_refusal(R"({"weight_map":{},"weight_map":{}})"), "stands twice"));
    EXPECT_TRUE(says(index_refusal(R"(["weight_map"])"), "an object was expected"));
    EXPECT_TRUE(says(index_refusal("{\"a\":" + std::string(1000, '[')), "nesting beyond 64"));
}

TEST(Catalogue, an_index_cut_at_any_length_is_an_error) {
    for (const char* model : {"qwen3-tiny", "qwen3moe-tiny"}) {
        const std::string text = test::read_file(golden / model / index_name);
        const std::size_t end = text.find_last_not_of(" \n\r\t") + 1;
        for (std::size_t length = 0; length < end; ++length) {
            EXPECT_TRUE(says(index_refusal(text.substr(0, length)), "index.json")) << length;
        }
        EXPECT_NO_THROW(parse_shard_index(text.substr(0, end), "index.json"));
    }
}

TEST(Catalogue, a_shard_cut_at_any_length_is_an_error) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    const std::string whole = test::read_file(folder / "b.safetensors");
    for (std::size_t length = 0; length < whole.size(); ++length) {
        test::write_file(folder / "b.safetensors", whole.substr(0, length));
        EXPECT_TRUE(says(refusal(folder.path()), "b.safetensors")) << length;
    }
}

TEST(Catalogue, links_may_lead_anywhere_below_the_allowed_root_and_nowhere_else) {
    TemporaryFolder root, elsewhere;
    fs::create_directories(root / "snapshots/c");
    fs::create_directories(root / "blobs");
    test::write_file(root / "blobs/1", test::safetensors_file({bytes_named("p")}));
    test::write_file(elsewhere / "2", test::safetensors_file({bytes_named("p")}));
    const fs::path snapshot = root / "snapshots/c", file = snapshot / "model.safetensors";
    fs::create_symlink("../../blobs/1", file);
    EXPECT_EQ(Catalogue::open(snapshot, root.path()).tensors().size(), 1U);
    EXPECT_TRUE(
        says(error_of([&] { Catalogue::open(snapshot, snapshot); }), file.string(), "outside", snapshot.string()));
    fs::remove(file);
    fs::create_symlink(elsewhere / "2", file);
    EXPECT_TRUE(says(error_of([&] { Catalogue::open(snapshot, root.path()); }), file.string(), "outside"));
    fs::remove(file);
    fs::create_symlink("model.safetensors", file);
    EXPECT_TRUE(says(refusal(snapshot), file.string(), "leads nowhere"));
}

TEST(Catalogue, a_root_that_is_only_a_prefix_of_the_name_does_not_count) {
    TemporaryFolder folder;
    fs::create_directories(folder / "model");
    fs::create_directories(folder / "model-2");
    test::write_file(folder / "model-2/x", test::safetensors_file({bytes_named("p")}));
    fs::create_symlink("../model-2/x", folder / "model/model.safetensors");
    EXPECT_TRUE(says(refusal(folder / "model"), "outside"));
}

TEST(Catalogue, an_index_that_is_a_link_out_of_the_root_is_refused) {
    TemporaryFolder folder, elsewhere;
    test::write_shards(folder.path(), two);
    fs::rename(folder / index_name, elsewhere / "index");
    fs::create_symlink(elsewhere / "index", folder / index_name);
    EXPECT_TRUE(says(refusal(folder.path()), index_name, "outside"));
}

TEST(Catalogue, folders_and_pipes_in_place_of_files_are_errors_without_a_wait) {
    for (const char* name : {"model.safetensors", "model.safetensors.index.json", "b.safetensors"}) {
        TemporaryFolder folder;
        test::write_shards(folder.path(), two);
        fs::remove(folder / name);
        ASSERT_EQ(::mkfifo((folder / name).c_str(), 0600), 0);
        EXPECT_TRUE(says(refusal(folder.path()), name, "pipe"));
        fs::remove(folder / name);
        fs::create_directory(folder / name);
        EXPECT_TRUE(says(refusal(folder.path()), name, "is a folder"));
    }
}

TEST(Catalogue, an_index_of_absurd_size_is_not_read) {
    TemporaryFolder folder;
    test::write_shards(folder.path(), two);
    fs::resize_file(folder / index_name, std::uintmax_t{1} << 40);
    EXPECT_TRUE(says(refusal(folder.path()), index_name, "1099511627776 bytes"));
}

}  // namespace
