// The result file: HDF5 that h5py, xarray (h5netcdf) and netCDF4 open. Written under a temporary name, verified,
// renamed.
//
//   rank 0   create_skeleton()    groups, scales, variables (early allocation, no fill), attributes; closed
//   all      write_slabs()        each rank its own slabs (output/write_slabs.hpp)
//   rank 0   append()             what follows from them; complete = 1 comes last; fsync
//   all      verify()             reopened, every number and attribute read back
//   rank 0   give_name()          rename, fsync of the folder (output/output_path.hpp)
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "output/records.hpp"

namespace geom {

/// An attribute of the root, a group or a variable. A group that does not exist yet is made.
struct Attribute {
    std::string group;  ///< "" for the root; a variable's path is as good
    std::string name;
    AttributeValue value;
    friend bool operator==(const Attribute&, const Attribute&) = default;
};

/// Serial. Takes the whole file's space from the disk at once, so that a full one is found here and not hours later.
/// Throws Error(output) naming the file and the system's reason; then nothing is left behind.
void create_skeleton(const std::filesystem::path& temporary, const Schema& schema,
                     const std::vector<Attribute>& attributes);

/// What a box of a variable has to hold.
struct Checksum {
    std::int64_t variable = 0;  ///< index into Schema::variables
    std::vector<std::int64_t> start, count;
    std::uint32_t crc = 0;
};

/// The checksums of slabs that are written; of pieces that can be read back one at a time.
std::vector<Checksum> checksums_of(const Schema& schema, std::span<const Slab> slabs);

/// As bytes for another rank, and back.
std::string bytes_of(const std::vector<Checksum>& checksums);
std::vector<Checksum> checksums_of(std::string_view bytes);

/// Local. Throws Error(output) on the first box that does not hold what its checksum is of.
void verify(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Checksum>& checksums);

/// Local: the coordinates of all scales are the schema's, and the file has these attributes. Throws Error(output).
void verify_structure(const std::filesystem::path& temporary, const Schema& schema,
                      const std::vector<Attribute>& attributes);

/// Serial: adds slabs and attributes to a closed file; they are on disk when this returns. Throws Error(output).
void append(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Slab>& slabs,
            const std::vector<Attribute>& attributes);

/// The attribute that says so of a complete result.
Attribute complete_attribute();

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
