// One HDF5 file over the C API and its dimension scales (H5DS): the only place that knows HDF5's calls.
// Paths inside the file are relative to the root ("gram/gram"); "" is the root itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "output/records.hpp"

namespace geom {

/// "1.10.8".
std::string hdf5_version();

/// To be called before MPI starts: HDF5 then closes nothing by itself at the end of the program, neither with MPI nor
/// after it. A file whose closing has failed would be closed again there, which crashes.
void start_hdf5();

/// Throws Error(output) when an HDF5 call returned a negative status: `what`, then the system's reason and the
/// innermost message of HDF5's error stack. To be called right after the call: the next one clears the stack.
void check_hdf5(std::int64_t status, const std::string& what);

/// An HDF5 identifier and how to close it. Move-only.
class Hdf5Handle {
public:
    using Close = int (*)(std::int64_t);

    Hdf5Handle() = default;
    Hdf5Handle(std::int64_t id, Close how) noexcept : id_(id), close_(how) {}
    ~Hdf5Handle() {
        if (id_ >= 0) close_(id_);
    }
    Hdf5Handle(Hdf5Handle&& other) noexcept : id_(other.release()), close_(other.close_) {}
    Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
        std::swap(id_, other.id_);
        std::swap(close_, other.close_);
        return *this;
    }

    std::int64_t id() const noexcept { return id_; }
    std::int64_t release() noexcept { return std::exchange(id_, -1); }

    /// What the destructor would have to swallow: throws Error(output) when HDF5 could not write what it still had.
    void close(const std::string& what);

private:
    std::int64_t id_ = -1;
    Close close_ = nullptr;
};

class Hdf5File {
public:
    enum class Access : std::uint8_t { read, update };

    /// Makes the file anew (format of HDF5 1.8 and later). Serial.
    static Hdf5File create(const std::filesystem::path& file);
    /// Serial. Where the file system has no locks, says so on stderr and goes on without.
    static Hdf5File open(const std::filesystem::path& file, Access access);

    void create_group(const std::string& path);  ///< with the groups around it; nothing if it exists
    /// Contiguous, allocated, not filled.
    void create_dataset(const std::string& path, ValueType type, const std::vector<std::int64_t>& shape);
    /// Texts padded with zeros to `width` bytes: characters [texts, width].
    void create_characters(const std::string& path, const std::vector<std::string>& texts, std::int64_t width);
    /// A dataset that only stands for a dimension, without numbers of its own.
    void create_dimension(const std::string& path, std::int64_t length);

    void make_scale(const std::string& path, const std::string& name);
    void attach_scale(const std::string& path, std::int64_t axis, const std::string& scale);

    void set_attribute(const std::string& path, const std::string& name, const AttributeValue& value);
    void set_dimension_id(const std::string& path, std::int32_t id);                        ///< _Netcdf4Dimid
    void set_dimension_ids(const std::string& path, const std::vector<std::int32_t>& ids);  ///< _Netcdf4Coordinates

    void write(const std::string& path, ValueType type, const Piece& piece, const std::byte* data);
    void read(const std::string& path, ValueType type, const Piece& piece, std::byte* data) const;

    std::vector<std::string> datasets() const;                     ///< paths of all, by name
    bool has(const std::string& path) const;                       ///< a dataset
    std::optional<ValueType> type(const std::string& path) const;  ///< none where it is another than these
    bool holds_integers(const std::string& path) const;            ///< of any size
    bool is_scale(const std::string& path) const;
    /// Names of the scales attached to a dataset's axes; "" for an axis without.
    std::vector<std::string> scales(const std::string& path) const;
    /// Of the first byte of a dataset of create_dataset(), in the file.
    std::int64_t offset(const std::string& path) const;
    std::vector<std::int64_t> shape(const std::string& path) const;
    std::vector<double> read_numbers(const std::string& path) const;     ///< all, converted to f64
    std::vector<std::string> read_texts(const std::string& path) const;  ///< of create_characters()
    bool has_attribute(const std::string& path, const std::string& name) const;
    std::vector<std::string> attribute_names(const std::string& path) const;  ///< by name
    AttributeValue attribute(const std::string& path, const std::string& name) const;

    void flush();
    /// Closes, and reports what the destructor would have to swallow.
    void close();

private:
    Hdf5File(Hdf5Handle file, std::filesystem::path name) : file_(std::move(file)), name_(std::move(name)) {}
    Hdf5Handle open_dataset(const std::string& path) const;
    Hdf5Handle open_object(const std::string& path) const;
    std::string place(const char* verb, const std::string& path) const;  ///< "cannot VERB PATH in FILE"
    void set_raw_attribute(const std::string& path, const std::string& name, std::int64_t type,
                           const std::vector<std::int64_t>& shape, const void* data);

    Hdf5Handle file_;
    std::filesystem::path name_;
};

}  // namespace geom
