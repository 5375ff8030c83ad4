#include "kernels/cpu/isa.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "support/error_of.hpp"

namespace geom::test {
namespace {

class LoweredIsa : public ::testing::Test {
protected:
    void SetUp() override {
        if (const char* value = std::getenv("GEOM_MPI_ISA")) before_ = value;
    }
    void TearDown() override {
        if (before_) {
            ::setenv("GEOM_MPI_ISA", before_->c_str(), 1);
        } else {
            ::unsetenv("GEOM_MPI_ISA");
        }
    }

private:
    std::optional<std::string> before_;
};

TEST_F(LoweredIsa, is_the_processors_unless_the_environment_names_less) {
    ::unsetenv("GEOM_MPI_ISA");
    EXPECT_EQ(usable_isa(), processor_isa());
    for (int i = 0; i < isa_count; ++i) {
        const auto isa = static_cast<Isa>(i);
        ::setenv("GEOM_MPI_ISA", std::string(name_of(isa)).c_str(), 1);
        if (processor_has(isa)) {
            EXPECT_EQ(usable_isa(), isa) << name_of(isa);
        } else {
            EXPECT_TRUE(says(error_of([] { usable_isa(); }, ExitCode::usage), name_of(isa), "this processor has"));
        }
    }
}

TEST_F(LoweredIsa, of_a_name_that_is_not_known_is_refused_with_those_that_are) {
    ::setenv("GEOM_MPI_ISA", "mmx", 1);
    EXPECT_TRUE(says(error_of([] { usable_isa(); }, ExitCode::usage), "GEOM_MPI_ISA=mmx", "portable"));
}

}  // namespace
}  // namespace geom::test
