#include "checkpoint/fingerprint.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "support/error_of.hpp"
#include "support/safetensors_writer.hpp"
#include "support/temporary_folder.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;
namespace fs = std::filesystem;

namespace {

Fingerprint of(const fs::path& folder) { return fingerprint_of(Checkpoint::open(folder, "", "")); }

class FingerprintOfModel : public ::testing::Test {
protected:
    FingerprintOfModel() {
        fs::copy(fs::path(GEOM_TEST_DATA) / "golden" / "qwen3-tiny", folder_ / "model");
        original_ = of(folder_ / "model");
    }
    fs::path model() const { return folder_ / "model"; }

    test::TemporaryFolder folder_;
    Fingerprint original_;
};

TEST_F(FingerprintOfModel, of_a_copy_has_the_same_contents_and_another_digest) {
    EXPECT_EQ(of(model()).digest, original_.digest);
    fs::create_directory(folder_ / "elsewhere");
    fs::copy(model(), folder_ / "elsewhere" / "model");
    const Fingerprint copy = of(folder_ / "elsewhere" / "model");
    EXPECT_EQ(copy.contents, original_.contents);
    EXPECT_NE(copy.digest, original_.digest);
    EXPECT_EQ(copy.digest.size(), 16U);
}

TEST_F(FingerprintOfModel, tells_any_changed_byte_of_a_sample_and_any_time_apart) {
    const fs::path shard = model() / "model-00004-of-00004.safetensors";
    std::string bytes = test::read_bytes(shard, 0, static_cast<std::int64_t>(fs::file_size(shard)));
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    test::write_file(shard, bytes);
    const auto [before, after] = difference_of(original_.contents, of(model()).contents);
    EXPECT_TRUE(says(before, "model-00004-of-00004.safetensors"));
    EXPECT_NE(before, after);
    const Fingerprint changed = of(model());
    fs::last_write_time(shard, fs::last_write_time(shard) + std::chrono::seconds(1));
    EXPECT_EQ(of(model()).contents, changed.contents);
    EXPECT_NE(of(model()).digest, changed.digest);
}

TEST_F(FingerprintOfModel, of_a_shard_that_changes_after_its_header_was_read_is_an_error) {
    const Checkpoint opened = Checkpoint::open(model(), "", "");
    const fs::path shard = model() / "model-00001-of-00004.safetensors";
    fs::last_write_time(shard, fs::last_write_time(shard) + std::chrono::seconds(1));
    EXPECT_TRUE(says(error_of([&] { fingerprint_of(opened); }), shard.string(), "written to"));
}

TEST(Fingerprint, of_a_synthetic_model_is_its_name) {
    const auto of_name = [](const char* name) { return fingerprint_of(Checkpoint::open(name, "", "")).digest; };
    EXPECT_EQ(of_name("synth:tiny?seed=3"), of_name("synth:tiny?seed=3"));
    EXPECT_NE(of_name("synth:tiny?seed=3"), of_name("synth:tiny?seed=4"));
}

TEST(Fingerprint, the_difference_is_the_first_line_that_differs) {
    using Lines = std::pair<std::string, std::string>;
    EXPECT_EQ(difference_of("a\nb\n", "a\nb\n"), Lines());
    EXPECT_EQ(difference_of("a\nb\nc\n", "a\nd\ne\n"), (Lines{"b", "d"}));
    EXPECT_EQ(difference_of("a\n", "a\nb\n"), (Lines{"", "b"}));
}

}  // namespace
