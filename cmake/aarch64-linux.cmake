# Toolchain for a Debian sysroot of arm64 (SYSROOT; tests/check_aarch64.sh makes one) on another processor.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SYSROOT)
set(CMAKE_SYSROOT ${SYSROOT})
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-cpu;max;-L;${SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# Debian's own links to these are made by a package's installation, which a sysroot has not seen.
set(libraries ${SYSROOT}/usr/lib/aarch64-linux-gnu)
set(OpenBLAS_DIR ${libraries}/openblas-openmp/cmake/openblas)
set(MPI_C_HEADER_DIR ${libraries}/openmpi/include)
set(MPI_C_LIB_NAMES mpi)
set(MPI_mpi_LIBRARY ${libraries}/openmpi/lib/libmpi.so)
set(HDF5_C_COMPILER_EXECUTABLE /bin/false)  # this machine's wrapper would name its own libraries
set(HDF5_C_INCLUDE_DIR ${SYSROOT}/usr/include/hdf5/openmpi)
set(HDF5_hdf5_LIBRARY_RELEASE ${libraries}/libhdf5_openmpi.so)
set(HDF5_hdf5_hl_LIBRARY_RELEASE ${libraries}/libhdf5_openmpi_hl.so)
