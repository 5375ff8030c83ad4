// The result file: HDF5 that h5py, xarray (h5netcdf) and netCDF4 open. Written under a temporary name, verified,
// renamed.
//
//   rank 0   create_skeleton()    groups, scales, variables (early allocation, no fill), attributes; closed
//   all      write_slabs()        each rank its own contiguous slabs, independently through MPI-IO; closed
//   all      verify_slabs()       reopened serially, read back, compared by CRC32C
//   rank 0   finish()             complete = 1, fsync, rename, fsync of the folder
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mpi/communicator.hpp"
#include "output/records.hpp"

namespace geom {

/// An attribute of the root, a group or a variable. A group that does not exist yet is made.
struct Attribute {
    std::string group;  ///< "" for the root; a variable's path is as good
    std::string name;
    AttributeValue value;
};

/// Throws Error(output) when `file` exists and may not be overwritten, or its folder is missing or not writable.
/// Leaves nothing behind.
void check_output(const std::filesystem::path& file, bool overwrite);

/// The name a result is written under until it is complete: FILE.tmp.HOST.PID, in the same folder. For rank 0 to
/// choose.
std::filesystem::path temporary_name(const std::filesystem::path& file);

/// Serial. Takes the whole file's space from the disk at once, so that a full one is found here and not hours later.
/// Throws Error(output) naming the file and the system's reason; then nothing is left behind.
void create_skeleton(const std::filesystem::path& temporary, const Schema& schema,
                     const std::vector<Attribute>& attributes);

/// Collective; a rank without slabs takes part with none. A rank that fails to write still flushes and closes with the
/// others, then throws Error(output) on its own: callers agree on it. Throws AgreedError when some rank does not see
/// the file, Error(internal) when MPI-IO opens it on some ranks only: then the job has to be aborted.
void write_slabs(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Slab>& slabs,
                 const Communicator& communicator);

/// Local: reads this rank's slabs back. Throws Error(output) on the first difference.
void verify_slabs(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Slab>& slabs);

/// Serial: adds slabs and attributes to a closed file; they are on disk when this returns. Throws Error(output).
void append(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Slab>& slabs,
            const std::vector<Attribute>& attributes);

/// Serial: complete = 1, fsync, rename over `file`, fsync of the folder. Throws Error(output).
void finish(const std::filesystem::path& temporary, const std::filesystem::path& file);

/// Reads a result file back: its schema is implied by the file. Used by analysis, analyze and tests.
class ResultReader {
public:
    /// Throws Error(input) when the file is missing, is not HDF5, or is not a complete geom-mpi result
    /// (a file in progress is accepted with `in_progress`).
    explicit ResultReader(const std::filesystem::path& file, bool in_progress = false);
    // Reading throws Error(input) naming what is not there or not of that kind.
    ~ResultReader();
    ResultReader(ResultReader&&) noexcept;
    ResultReader& operator=(ResultReader&&) noexcept;

    /// What the file declares, by name: variables whose every axis has a scale, and those scales.
    Schema schema() const;
    bool has(const std::string& path) const;
    std::vector<std::int64_t> shape(const std::string& path) const;
    std::vector<double> read(const std::string& path) const;  ///< all elements, as f64
    /// The box [start, start + count), row-major, as f64; for what is too large to be read at once. Throws
    /// Error(internal) for a box that leaves the variable.
    std::vector<double> read(const std::string& path, const std::vector<std::int64_t>& start,
                             const std::vector<std::int64_t>& count) const;
    /// The same as stored, `type` being the variable's own; out has the box's bytes.
    void read_bytes(const std::string& path, ValueType type, const std::vector<std::int64_t>& start,
                    const std::vector<std::int64_t>& count, std::span<std::byte> out) const;
    std::vector<std::string> labels(const std::string& path) const;  ///< of a scale: "spectra/family"
    bool has_attribute(const std::string& group, const std::string& name) const;
    /// All of a group, by name.
    std::vector<std::pair<std::string, AttributeValue>> attributes(const std::string& group) const;
    std::string text_attribute(const std::string& group, const std::string& name) const;
    std::vector<std::string> texts_attribute(const std::string& group, const std::string& name) const;
    double number_attribute(const std::string& group, const std::string& name) const;

private:
    friend class ResultEditor;
    struct State;
    explicit ResultReader(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

/// Serial: a file in progress, closed by everybody else, to which numbers and attributes are added (derivations,
/// times). Everything throws Error(output).
class ResultEditor {
public:
    explicit ResultEditor(const std::filesystem::path& temporary);

    const ResultReader& reader() const noexcept { return reader_; }
    void write(const Schema& schema, const Slab& slab);
    void set(const Attribute& attribute);

    /// Everything is on disk when this returns; without it that is not known.
    void close();

private:
    std::filesystem::path file_;
    ResultReader reader_;
};

}  // namespace geom
