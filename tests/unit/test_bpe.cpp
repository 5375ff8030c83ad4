#include "model/bpe.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace geom {
namespace {

using Ids = std::vector<std::int32_t>;

struct Pair {
    std::int32_t left, right, merged;
};

/// A vocabulary of all bytes, of which only a, b and c are merged: `count` pairs of tokens that are there already, in
/// an order in which a long one may stand before what it is made of.
struct RandomModel {
    Json json;
    std::vector<Pair> pairs;  // by rank

    RandomModel(std::mt19937& random, int count) {
        Json vocabulary = Json::parse(R"({})");
        std::vector<std::string> tokens;
        const auto add = [&](const std::string& token) {
            vocabulary[token] = tokens.size();
            tokens.push_back(token);
        };
        for (unsigned code = 0; code < 0x144; ++code) {
            const bool ascii = code > 0x20 && code < 0x7F;
            if (ascii) add(std::string(1, static_cast<char>(code)));
            if ((code >= 0xA1 && code != 0xAD)) {
                add({static_cast<char>(0xC0U | (code >> 6U)), static_cast<char>(0x80U | (code & 0x3FU))});
            }
        }
        std::vector<std::int32_t> usable = {vocabulary["a"], vocabulary["b"], vocabulary["c"]};
        while (std::ssize(pairs) < count) {
            const auto any = [&] { return usable[random() % usable.size()]; };
            const std::int32_t left = any(), right = any();
            const std::string merged = tokens[static_cast<std::size_t>(left)] + tokens[static_cast<std::size_t>(right)];
            const auto same = [&](const Pair& pair) { return pair.left == left && pair.right == right; };
            if (merged.size() > 6 || std::any_of(pairs.begin(), pairs.end(), same)) continue;
            if (!vocabulary.contains(merged)) {
                usable.push_back(static_cast<std::int32_t>(tokens.size()));
                add(merged);
            }
            pairs.push_back({left, right, vocabulary[merged]});
        }
        std::shuffle(pairs.begin(), pairs.end(), random);
        json = {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}};
        for (const Pair& pair : pairs) {
            json["merges"].push_back(Json::array(
                {tokens[static_cast<std::size_t>(pair.left)], tokens[static_cast<std::size_t>(pair.right)]}));
        }
    }

    /// As it is defined: the first pair of the list that occurs is merged where it occurs first, until none does.
    Ids encoded(const std::string& word) const {
        Ids ids;
        for (const char letter : word) ids.push_back(json["vocab"][std::string(1, letter)]);
        const auto merge_one = [&] {
            for (const Pair& pair : pairs) {
                for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
                    if (ids[i] != pair.left || ids[i + 1] != pair.right) continue;
                    ids[i] = pair.merged;
                    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
                    return true;
                }
            }
            return false;
        };
        while (merge_one()) {
        }
        return ids;
    }
};

TEST(Bpe, merges_as_a_search_through_the_whole_list_does) {
    std::mt19937 random(7);
    for (int model = 0; model < 60; ++model) {
        const RandomModel reference(random, 3 + model % 20);
        const Bpe bpe = Bpe::read(reference.json, "a test");
        for (int i = 0; i < 40; ++i) {
            std::string word;
            for (auto length = random() % 40; length > 0; --length) word += "abc"[random() % 3];
            Ids ids;
            bpe.encode(word, ids);
            ASSERT_EQ(ids, reference.encoded(word)) << word << " " << reference.json["merges"];
        }
    }
}

TEST(Bpe, merges_a_word_of_a_million_letters) {
    std::mt19937 random(3);
    const RandomModel reference(random, 20);
    const Bpe bpe = Bpe::read(reference.json, "a test");
    const std::string once = "abcabcbacbacbabcabbbbbbaaaaaacccc";
    std::string word;
    while (word.size() < 1'000'000) word += once;
    Ids ids;
    bpe.encode(word, ids);
    EXPECT_LT(ids.size(), word.size());
    EXPECT_GT(ids.size(), word.size() / 7);
}

TEST(Bpe, takes_the_later_place_of_a_pair_that_is_listed_twice) {
    std::mt19937 random(3);
    Json model = RandomModel(random, 0).json;
    model["vocab"]["ab"] = 1000;
    model["vocab"]["bc"] = 1001;
    model["merges"] = {"a b", "b c", "a b"};
    Ids ids;
    Bpe::read(model, "a test").encode("abc", ids);
    EXPECT_EQ(ids, (Ids{model["vocab"]["a"], 1001}));
}

}  // namespace
}  // namespace geom
