# GPUs. GEOM_CUDA says which sources of kernels/cuda and mpi/nccl are built, and with what:
#   AUTO      ON where nvcc, cuBLAS and cuSOLVER are found, else OFF
#   ON        nvcc; NCCL where it is found
#   OFF       absent.cpp of both folders
#   EMULATED  the same sources for a processor, on tests/emulator: for tests where there is no GPU. Needs the CUDA
#             headers (and NCCL's), no compiler, library or driver of CUDA.
set(GEOM_CUDA AUTO CACHE STRING "CUDA: AUTO, ON, OFF, or EMULATED (tests without a GPU)")
set_property(CACHE GEOM_CUDA PROPERTY STRINGS AUTO ON OFF EMULATED)
if(NOT GEOM_CUDA MATCHES "^(AUTO|ON|OFF|EMULATED)$")
  message(FATAL_ERROR "GEOM_CUDA is AUTO, ON, OFF or EMULATED, not ${GEOM_CUDA}")
endif()

set(GEOM_CUDA_MODE ${GEOM_CUDA})  # AUTO decided
set(GEOM_CUDA_WHY "")             # what the report says where there is none
set(GEOM_NCCL absent)

find_path(NCCL_INCLUDE nccl.h HINTS ${NCCL_ROOT} $ENV{NCCL_ROOT} /usr/local/cuda PATH_SUFFIXES include)
find_library(NCCL_LIBRARY nccl HINTS ${NCCL_ROOT} $ENV{NCCL_ROOT} /usr/local/cuda PATH_SUFFIXES lib lib64)
mark_as_advanced(NCCL_INCLUDE NCCL_LIBRARY)

if(GEOM_CUDA_MODE MATCHES "^(AUTO|ON)$")
  if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
    mark_as_advanced(NVCC)
    if(NVCC)
      set(ENV{CUDACXX} ${NVCC})
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    find_package(CUDAToolkit QUIET)
  endif()
  if(NOT CMAKE_CUDA_COMPILER)
    set(GEOM_CUDA_WHY "no nvcc that works")
  elseif(NOT CUDAToolkit_FOUND OR NOT TARGET CUDA::cublas OR NOT TARGET CUDA::cusolver)
    set(GEOM_CUDA_WHY "${CMAKE_CUDA_COMPILER} without cuBLAS or cuSOLVER")
  elseif(CUDAToolkit_VERSION VERSION_LESS 12.8)  # sm_100, C++20, cusolverDnXsyevBatched
    set(GEOM_CUDA_WHY "CUDA ${CUDAToolkit_VERSION}, and 12.8 is the oldest that will do")
  endif()
  if(NOT GEOM_CUDA_WHY)
    set(GEOM_CUDA_MODE ON)
  elseif(GEOM_CUDA_MODE STREQUAL ON)
    message(FATAL_ERROR "GEOM_CUDA=ON: ${GEOM_CUDA_WHY}; set CMAKE_CUDA_COMPILER or CUDACXX, or GEOM_CUDA=OFF")
  else()
    set(GEOM_CUDA_MODE OFF)
  endif()
endif()

if(GEOM_CUDA_MODE STREQUAL ON)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)  # A100, H100, B200 and what comes after
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;100" CACHE STRING "Compute capabilities of the GPUs built for")
  endif()
  if(NOT DEFINED CMAKE_CUDA_HOST_COMPILER AND NOT DEFINED ENV{CUDAHOSTCXX})
    set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  endif()
  enable_language(CUDA)
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc 12 has it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3 -lineinfo")
  # Products are not contracted, as on the processor: fma() where the source says so.
  set(cuda_flags -Xcompiler=-Wall,-Wextra,-Wshadow,-Wnon-virtual-dtor -Xcompiler=-ffp-contract=off --fmad=false)
  if(GEOM_WERROR)
    list(APPEND cuda_flags -Xcompiler=-Werror "SHELL:-Werror all-warnings")
  endif()
  target_compile_options(geom_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>")
  if(NCCL_INCLUDE AND NCCL_LIBRARY)
    set(GEOM_NCCL present)
  endif()
elseif(GEOM_CUDA_MODE STREQUAL EMULATED)
  find_path(CUDA_HEADERS cusolverDn.h HINTS ${CUDAToolkit_ROOT} ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda
            PATH_SUFFIXES include targets/x86_64-linux/include)
  if(NOT CUDA_HEADERS)
    message(FATAL_ERROR "GEOM_CUDA=EMULATED needs the headers of CUDA (cusolverDn.h, cublas_v2.h, cuda_runtime.h); "
                        "set CUDAToolkit_ROOT to where include/ has them")
  endif()
  if(NCCL_INCLUDE)
    set(GEOM_NCCL present)
  endif()
endif()

# Sources of the two folders; to be called once, before the library is made.
function(gpu_sources out)
  if(GEOM_CUDA_MODE STREQUAL OFF)
    file(GLOB cuda CONFIGURE_DEPENDS kernels/cuda/absent.cpp)
  else()
    file(GLOB cuda CONFIGURE_DEPENDS kernels/cuda/*.cpp kernels/cuda/*.cu)
    list(FILTER cuda EXCLUDE REGEX "/absent\\.cpp$")
  endif()
  if(GEOM_NCCL STREQUAL absent)
    file(GLOB nccl CONFIGURE_DEPENDS mpi/nccl/absent.cpp)
  else()
    file(GLOB nccl CONFIGURE_DEPENDS mpi/nccl/*.cpp)
    list(FILTER nccl EXCLUDE REGEX "/absent\\.cpp$")
  endif()
  if(GEOM_CUDA_MODE STREQUAL EMULATED)
    set(files ${cuda})
    list(FILTER files INCLUDE REGEX "\\.cu$")
    emulated(${files})
  endif()
  set(${out} ${cuda} ${nccl} PARENT_SCOPE)
endfunction()

# Makes .cu files ones that g++ compiles; again in each folder that has some. What nvcc knows of itself they know from
# the emulator's launch.cuh, wherever they include it.
function(emulated)
  foreach(file ${ARGN})
    set_source_files_properties(${file} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS
                                "-include;kernels/cuda/launch.cuh;-Wno-unknown-pragmas")
  endforeach()
endfunction()

# What a target needs that has sources with CUDA's headers in them.
function(use_gpu target)
  if(GEOM_CUDA_MODE STREQUAL ON)
    target_link_libraries(${target} PRIVATE CUDA::cudart CUDA::cublas CUDA::cusolver ${CMAKE_DL_LIBS})
    if(GEOM_NCCL STREQUAL present)
      target_include_directories(${target} SYSTEM PRIVATE ${NCCL_INCLUDE})
      target_link_libraries(${target} PRIVATE ${NCCL_LIBRARY})
    endif()
  elseif(GEOM_CUDA_MODE STREQUAL EMULATED)
    # before all others: there lies another kernels/cuda/launch.cuh
    target_include_directories(${target} BEFORE PRIVATE ${PROJECT_SOURCE_DIR}/tests/emulator/include)
    target_include_directories(${target} SYSTEM PRIVATE ${CUDA_HEADERS} ${NCCL_INCLUDE})
    target_link_libraries(${target} PRIVATE emulator ${CMAKE_DL_LIBS})
  endif()
endfunction()

if(GEOM_CUDA_MODE STREQUAL EMULATED)
  file(GLOB emulator CONFIGURE_DEPENDS tests/emulator/*.cpp)
  add_library(emulator STATIC ${emulator})
  target_include_directories(emulator BEFORE PRIVATE tests/emulator/include)
  target_include_directories(emulator PRIVATE tests src ${PROJECT_SOURCE_DIR})
  target_include_directories(emulator SYSTEM PRIVATE ${CUDA_HEADERS} ${NCCL_INCLUDE} ${LAPACKE_INCLUDE})
  target_link_libraries(emulator PRIVATE geom_flags fmt::fmt Threads::Threads MPI::MPI_C ${LAPACKE_LIBRARY}
                        OpenBLAS::OpenBLAS ${CMAKE_DL_LIBS})
  target_compile_definitions(emulator PRIVATE OMPI_SKIP_MPICXX=1 MPICH_SKIP_MPICXX=1)
endif()
