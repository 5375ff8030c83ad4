#include "output/write_slabs.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>

#include "core/error.hpp"
#include "mpi/agreement.hpp"
#include "output/hdf5_file.hpp"

namespace geom {

namespace {

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie in memory");

constexpr std::size_t largest_write = std::size_t{1} << 30;

[[noreturn]] void raise_system(const std::string& what, int reason) {
    throw Error(ExitCode::output, fmt::format("{}: {}", what, std::strerror(reason)));
}

std::string strange_file(const std::filesystem::path& file, std::int64_t expected_bytes) {
    const int descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return std::strerror(errno);
    struct stat status {};
    const int reason = ::fstat(descriptor, &status) == 0 ? 0 : errno;
    ::close(descriptor);
    if (reason != 0) return std::strerror(reason);
    if (status.st_size == expected_bytes) return {};
    return fmt::format("it has {} bytes here and {} on rank 0", status.st_size, expected_bytes);
}

void agree_on_file(const std::filesystem::path& file, const Communicator& communicator) {
    std::error_code ignored;
    const auto here = communicator.rank() == 0 ? std::filesystem::file_size(file, ignored) : 0;
    const std::string bytes = communicator.broadcast(std::to_string(static_cast<std::int64_t>(here)), 0);
    std::optional<Error> failure;
    if (const auto reason = strange_file(file, std::stoll(bytes)); !reason.empty()) {
        failure.emplace(ExitCode::output,
                        fmt::format("cannot open {} for writing: {}; all ranks need the same file: is "
                                    "its folder on a file system that all nodes share?",
                                    file.string(), reason));
    }
    agree(communicator, failure);
}

/// The file, opened for writing; close() says whether everything is on disk.
class OutputFile {
public:
    explicit OutputFile(const std::filesystem::path& file)
        : file_(file), descriptor_(::open(file.c_str(), O_WRONLY | O_CLOEXEC)) {
        if (descriptor_ < 0) raise_system(fmt::format("cannot open {} for writing", file.string()), errno);
    }
    ~OutputFile() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;

    void write(std::int64_t offset, std::span<const std::byte> bytes, const std::string& path) {
        while (!bytes.empty()) {
            const ::ssize_t wrote = ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), largest_write), offset);
            if (wrote < 0 && errno == EINTR) continue;
            if (wrote <= 0)
                raise_system(fmt::format("cannot write {} in {}", path, file_.string()), wrote < 0 ? errno : ENOSPC);
            offset += wrote;
            bytes = bytes.subspan(static_cast<std::size_t>(wrote));
        }
    }

    void close() {
        int reason = ::fdatasync(descriptor_) == 0 ? 0 : errno;
        if (::close(std::exchange(descriptor_, -1)) != 0 && reason == 0) reason = errno;
        if (reason != 0) raise_system(fmt::format("cannot write {} to disk", file_.string()), reason);
    }

private:
    std::filesystem::path file_;
    int descriptor_;
};

/// Where the numbers of each slab's variable begin in the file.
std::vector<std::int64_t> offsets_of(const std::filesystem::path& file, const Schema& schema,
                                     const std::vector<Slab>& slabs) {
    auto opened = Hdf5File::open(file, Hdf5File::Access::read);
    std::vector<std::int64_t> offsets;
    for (const Slab& slab : slabs) {
        check_slab(schema, slab);
        const bool empty = slab.elements() == 0;
        offsets.push_back(empty ? 0 : opened.offset(schema.variables[static_cast<std::size_t>(slab.variable)].path()));
    }
    opened.close();
    return offsets;
}

}  // namespace

std::vector<Run> runs_of(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& start,
                         const std::vector<std::int64_t>& count) {
    std::vector<Run> runs = {{0, 0, 1}};
    std::int64_t below = 1;  // elements of the variable to a step along the axis
    bool whole = true;       // all axes after this one are, so that steps lie one after the other
    for (std::size_t axis = shape.size(); axis-- > 0;) {
        const std::int64_t in_box = runs.size() * static_cast<std::size_t>(runs.front().count);
        if (whole) {
            runs = {{start[axis] * below, 0, count[axis] * below}};
        } else {
            std::vector<Run> steps;
            for (std::int64_t step = 0; step < count[axis]; ++step) {
                for (const Run& run : runs)
                    steps.push_back({run.at + (start[axis] + step) * below, run.from + step * in_box, run.count});
            }
            runs = std::move(steps);
        }
        whole = whole && count[axis] == shape[axis];
        below *= shape[axis];
        if (count[axis] == 0) return {};
    }
    return runs;
}

void write_slabs(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Slab>& slabs,
                 const Communicator& communicator) {
    agree_on_file(temporary, communicator);
    const std::vector<std::int64_t> offsets = offsets_of(temporary, schema, slabs);
    if (slabs.empty()) return;
    OutputFile file(temporary);
    for (std::size_t s = 0; s < slabs.size(); ++s) {
        const Slab& slab = slabs[s];
        const Variable& variable = schema.variables[static_cast<std::size_t>(slab.variable)];
        const std::int64_t element = size_of(variable.type);
        for (const Run& run : runs_of(schema.shape_of(variable), slab.start, slab.count)) {
            file.write(offsets[s] + run.at * element,
                       std::span(slab.data).subspan(static_cast<std::size_t>(run.from * element),
                                                    static_cast<std::size_t>(run.count * element)),
                       variable.path());
        }
    }
    file.close();
}

}  // namespace geom
