#include "checkpoint/hub_cache.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "support/error_of.hpp"
#include "support/safetensors_writer.hpp"
#include "support/temporary_folder.hpp"

using namespace geom;
using geom::test::error_of;
using geom::test::says;
using geom::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

const std::string commit = "0123456789abcdef0123456789abcdef01234567";
const std::string other_commit = "ffffffffffffffffffffffffffffffffffffffff";
const std::string id = "Some-Org/A.Model_7B";

constexpr const char* variables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};

/// Every test starts with none of the variables set and leaves them as they were.
class HubCache : public ::testing::Test {
protected:
    void SetUp() override {
        for (const char* name : variables) {
            const char* value = std::getenv(name);
            before_.emplace_back(value == nullptr ? std::nullopt : std::optional<std::string>(value));
            ::unsetenv(name);
        }
    }
    void TearDown() override {
        for (std::size_t i = 0; i < before_.size(); ++i) {
            if (before_[i]) {
                ::setenv(variables[i], before_[i]->c_str(), 1);
            } else {
                ::unsetenv(variables[i]);
            }
        }
    }

    static void set(const char* name, const fs::path& value) { ::setenv(name, value.c_str(), 1); }

    /// A snapshot of `id` in the cache folder `hub`, reached by the branch or tag `ref`.
    static fs::path add_snapshot(const fs::path& hub, const std::string& ref, const std::string& sha = commit) {
        const fs::path model = hub / "models--Some-Org--A.Model_7B";
        fs::create_directories((model / "refs" / ref).parent_path());
        fs::create_directories(model / "snapshots" / sha);
        fs::create_directories(model / "blobs");
        test::write_file(model / "refs" / ref, sha);
        test::write_file(model / "blobs" / "c", "{}");
        if (!fs::exists(model / "snapshots" / sha / "config.json")) {
            fs::create_symlink("../../blobs/c", model / "snapshots" / sha / "config.json");
        }
        return model;
    }

    static std::string refusal(const std::string& model, const std::string& revision = "") {
        return error_of([&] { resolve_model(model, revision); });
    }

    TemporaryFolder folder_;

private:
    std::vector<std::optional<std::string>> before_;
};

TEST_F(HubCache, resolves_main_through_its_ref) {
    set("HF_HUB_CACHE", folder_.path());
    const fs::path model = add_snapshot(folder_.path(), "main");
    const ModelFolder found = resolve_model(id, "");
    EXPECT_EQ(found.folder, model / "snapshots" / commit);
    EXPECT_EQ(found.allowed_root, model);
    EXPECT_EQ(found.name, id);
    EXPECT_EQ(found.revision, "main");
    EXPECT_EQ(found.commit, commit);
    EXPECT_TRUE(says(found.remedy, "hf download Some-Org/A.Model_7B --revision main"));
}

TEST_F(HubCache, resolves_revisions_with_slashes_tags_with_a_line_end_and_commits) {
    set("HF_HUB_CACHE", folder_.path());
    const fs::path model = add_snapshot(folder_.path(), "refs/pr/12", other_commit);
    add_snapshot(folder_.path(), "v1.0");
    test::write_file(model / "refs/v1.0", commit + "\n");
    EXPECT_EQ(resolve_model(id, "refs/pr/12").commit, other_commit);
    EXPECT_EQ(resolve_model(id, "v1.0").commit, commit);
    EXPECT_EQ(resolve_model(id, other_commit).folder, model / "snapshots" / other_commit);
}

TEST_F(HubCache, resolves_what_people_type_for_an_id) {
    set("HF_HUB_CACHE", folder_.path());
    const fs::path model = add_snapshot(folder_.path(), "main");
    add_snapshot(folder_.path(), "v1.0", other_commit);
    for (const char* typed : {"Some-Org/A.Model_7B/", "some-org/a.model_7b", "SOME-ORG/A.MODEL_7B//"}) {
        EXPECT_EQ(resolve_model(typed, "").folder, model / "snapshots" / commit) << typed;
        EXPECT_EQ(resolve_model(typed, "").name, id) << typed;
    }
    EXPECT_EQ(resolve_model(id + "@v1.0", "").folder, model / "snapshots" / other_commit);
    EXPECT_EQ(resolve_model(id + "/@" + commit, "").revision, commit);
    EXPECT_TRUE(says(error_of([] { resolve_model(id + "@v1.0", "main"); }, ExitCode::usage), "give one of them"));
    EXPECT_TRUE(says(refusal(id + "@v2"), "revision 'v2'"));
}

TEST_F(HubCache, does_not_choose_among_ids_that_differ_in_case_alone) {
    set("HF_HUB_CACHE", folder_.path());
    add_snapshot(folder_.path(), "main");
    fs::create_directories(folder_ / "models--some-org--A.Model_7B");
    EXPECT_TRUE(says(refusal("SOME-ORG/a.model_7b"), "is not on this machine"));
    EXPECT_EQ(resolve_model(id, "").name, id);
}

TEST_F(HubCache, resolves_an_id_without_an_organisation) {
    set("HF_HUB_CACHE", folder_.path());
    fs::create_directories(folder_ / "models--gpt");
    fs::rename(add_snapshot(folder_.path(), "main"), folder_ / "models--gpt");
    EXPECT_EQ(resolve_model("gpt", "main").name, "gpt");
}

TEST_F(HubCache, the_first_variable_that_is_set_decides) {
    const struct {
        const char* variable;
        fs::path value, hub;
    } order[] = {
        {"HOME", folder_ / "home", folder_ / "home/.cache/huggingface/hub"},
        {"XDG_CACHE_HOME", folder_ / "xdg", folder_ / "xdg/huggingface/hub"},
        {"HF_HOME", folder_ / "hf", folder_ / "hf/hub"},
        {"HUGGINGFACE_HUB_CACHE", folder_ / "old", folder_ / "old"},
        {"HF_HUB_CACHE", folder_ / "new", folder_ / "new"},
    };
    for (const auto& step : order) {
        set(step.variable, step.value);
        EXPECT_TRUE(says(refusal(id), (step.hub / "models--Some-Org--A.Model_7B").string()));
        const fs::path model = add_snapshot(step.hub, "main");
        EXPECT_EQ(resolve_model(id, "").allowed_root, model) << step.variable;
    }
    ::setenv("HF_HUB_CACHE", "", 1);
    EXPECT_EQ(resolve_model(id, "").allowed_root, folder_ / "old/models--Some-Org--A.Model_7B")
        << "empty counts as unset";
}

TEST_F(HubCache, a_tilde_stands_for_home) {
    set("HOME", folder_.path());
    add_snapshot(folder_ / "cache", "main");
    ::setenv("HF_HUB_CACHE", "~/cache", 1);
    EXPECT_EQ(resolve_model(id, "").commit, commit);
}

TEST_F(HubCache, without_any_variable_it_says_which_to_set) { EXPECT_TRUE(says(refusal(id), "set HF_HUB_CACHE")); }

TEST_F(HubCache, a_missing_model_names_paths_and_the_command_that_gets_it) {
    set("HF_HUB_CACHE", folder_.path());
    EXPECT_TRUE(says(refusal(id), "'Some-Org/A.Model_7B'",
                     (folder_ / "models--Some-Org--A.Model_7B/refs/main").string(), "refs present: none",
                     "snapshots present: none", "hf download Some-Org/A.Model_7B --revision main"));
}

TEST_F(HubCache, a_missing_revision_names_those_present) {
    set("HF_HUB_CACHE", folder_.path());
    add_snapshot(folder_.path(), "main");
    add_snapshot(folder_.path(), "refs/pr/3", other_commit);
    EXPECT_TRUE(says(refusal(id, "v2"), "'v2'", "'main'", "'refs/pr/3'", commit, other_commit,
                     "hf download Some-Org/A.Model_7B --revision v2"));
    const std::string absent(40, 'a');
    EXPECT_TRUE(says(refusal(id, absent), "snapshots/" + absent, commit));
}

TEST_F(HubCache, a_ref_whose_snapshot_is_gone_is_an_error) {
    set("HF_HUB_CACHE", folder_.path());
    fs::remove_all(add_snapshot(folder_.path(), "main") / "snapshots");
    EXPECT_TRUE(says(refusal(id), "snapshots/" + commit, "refs present: 'main'"));
}

TEST_F(HubCache, a_snapshot_without_config_is_partial) {
    set("HF_HUB_CACHE", folder_.path());
    fs::remove(add_snapshot(folder_.path(), "main") / "snapshots" / commit / "config.json");
    EXPECT_TRUE(says(refusal(id), "no config.json", "partial", "hf download Some-Org/A.Model_7B --revision main"));
}

TEST_F(HubCache, a_ref_that_holds_a_path_is_refused) {
    set("HF_HUB_CACHE", folder_.path());
    const fs::path model = add_snapshot(folder_.path(), "main");
    for (const std::string& text : {std::string("../../../etc"), std::string(""), std::string("main"), commit + "x",
                                    "../" + commit, std::string(5000, 'a')}) {
        test::write_file(model / "refs/main", text);
        EXPECT_TRUE(says(refusal(id), (model / "refs/main").string()));
    }
}

TEST_F(HubCache, ids_that_escape_are_refused) {
    set("HF_HUB_CACHE", folder_ / "hub");
    for (const char* model :
         {"a/b/c", "a//b", "a/",   "/x/y/none", "..",     "../none", "../../none", "a/..",   "a/../none", "a b/c",
          "a/b\n", "-a/b", "a/-b", "a--b/c",    "a/b..c", "a\\b",    "~/none",     "a/b;ls", "./none",    "%2e%2e/x"}) {
        const std::string message = refusal(model);
        EXPECT_EQ(message.find("hf download"), std::string::npos) << message;
    }
    EXPECT_TRUE(says(refusal(""), "empty"));
    EXPECT_TRUE(says(refusal(std::string("a\0b", 3)), "NUL"));
    EXPECT_TRUE(says(refusal("./none"), "./none: there is no such folder"));
    EXPECT_TRUE(says(refusal("/x/y/none"), "there is no such folder"));
    EXPECT_TRUE(says(refusal("a/b/c"), "neither a folder that exists nor a hub id"));
}

TEST_F(HubCache, revisions_that_escape_are_refused) {
    set("HF_HUB_CACHE", folder_.path());
    add_snapshot(folder_.path(), "main");
    for (const char* revision :
         {"..", "../x", "a/../../b", "/etc/passwd", "a//b", "a/", ".", "a b", "-x", "a\n", "$(ls)"}) {
        EXPECT_TRUE(says(refusal(id, revision), "is neither a branch, a tag nor a commit")) << revision;
    }
}

TEST_F(HubCache, a_folder_that_exists_is_taken_as_it_is) {
    fs::create_directories(folder_ / "my-model");
    test::write_file(folder_ / "my-model/config.json", "{}");
    const ModelFolder found = resolve_model((folder_ / "my-model/").string(), "");
    EXPECT_EQ(found.folder, folder_ / "my-model");
    EXPECT_EQ(found.allowed_root, found.folder);
    EXPECT_EQ(found.name, "my-model");
    EXPECT_EQ(found.revision, "");
    EXPECT_EQ(found.commit, "");
    EXPECT_TRUE(says(error_of([&] { resolve_model(folder_ / "my-model", "main"); }, ExitCode::usage), "--revision"));
}

TEST_F(HubCache, a_folder_without_config_and_a_file_are_refused) {
    EXPECT_TRUE(says(refusal(folder_.path()), folder_.path().string(), "no config.json"));
    test::write_file(folder_ / "model.safetensors", "x");
    EXPECT_TRUE(says(refusal(folder_ / "model.safetensors"), "is not a folder"));
}

TEST_F(HubCache, a_snapshot_given_as_a_folder_counts_as_its_model) {
    const fs::path model = add_snapshot(folder_.path(), "main");
    const ModelFolder found = resolve_model(model / "snapshots" / commit, "");
    EXPECT_EQ(found.name, id);
    EXPECT_EQ(found.commit, commit);
    EXPECT_EQ(found.allowed_root, model);
    EXPECT_TRUE(says(found.remedy, "hf download Some-Org/A.Model_7B --revision " + commit));
}

}  // namespace
