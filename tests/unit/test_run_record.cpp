#include "output/run_record.hpp"

#include <gtest/gtest.h>

using geom::Identity;

namespace {

TEST(RunRecord, an_identity_comes_back_from_its_text) {
    const Identity identity{{"commit", ""},
                            {"model", "synth:tiny?layers=3&seed=7"},
                            {"products", "cublas-bf16 on NVIDIA H100 80GB HBM3"},
                            {"top-k", "8"}};
    EXPECT_EQ(geom::identity_of_text(geom::identity_text(identity)), identity);
    EXPECT_TRUE(geom::identity_of_text("").empty());
}

TEST(RunRecord, identities_differ_by_name_on_either_side) {
    const Identity recorded{{"layers", "0:7"}, {"top-k", "8"}}, wanted{{"commit", "abc"}, {"top-k", "3"}};
    EXPECT_EQ(geom::text_of(geom::differences_between(recorded, wanted)),
              "layers was '0:7' and is '', top-k was '8' and is '3', commit was '' and is 'abc'");
    EXPECT_EQ(geom::text_of(geom::differences_between(wanted, wanted)), "");
}

}  // namespace
