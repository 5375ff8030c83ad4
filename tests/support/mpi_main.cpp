// gtest under mpirun: every rank runs every test; rank 0 prints, the others only when a test fails.
#include <gtest/gtest.h>

#include "mpi/communicator.hpp"
#include "mpi/environment.hpp"

int main(int argc, char** argv) {
    geom::MpiEnvironment environment(argc, argv, 600.0);
    environment.started();
    testing::InitGoogleTest(&argc, argv);
    geom::Communicator world = geom::Communicator::world();
    if (world.rank() != 0) {
        auto& listeners = testing::UnitTest::GetInstance()->listeners();
        delete listeners.Release(listeners.default_result_printer());
    }
    const int failed = RUN_ALL_TESTS();
    return static_cast<int>(world.all_reduce_max(std::int64_t{failed}));
}
