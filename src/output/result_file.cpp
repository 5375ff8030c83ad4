#include "output/result_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <numeric>
#include <utility>

#include "core/crc32c.hpp"
#include "core/error.hpp"
#include "core/host_name.hpp"
#include "output/hdf5_file.hpp"
#include "output/output_path.hpp"

namespace geom {

namespace {

constexpr std::int64_t largest_write = std::int64_t{1} << 30;
constexpr std::int64_t largest_read = std::int64_t{64} << 20;

[[noreturn]] void raise_system(const std::string& what, int reason) {
    throw Error(ExitCode::output, fmt::format("{}: {}", what, std::strerror(reason)));
}

std::filesystem::path folder_of(const std::filesystem::path& file) {
    return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

/// A file, opened for a system call.
class Descriptor {
public:
    Descriptor(const std::filesystem::path& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
        if (value_ < 0) raise_system(fmt::format("cannot open {}", path.string()), errno);
    }
    ~Descriptor() { ::close(value_); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const noexcept { return value_; }

private:
    int value_;
};

/// Where the file system that holds `folder` is mounted: what a reader of "no space left" wants to know.
std::filesystem::path mount_of(const std::filesystem::path& folder) {
    std::error_code failed;
    auto place = std::filesystem::canonical(folder, failed);
    struct stat here {
    }, above{};
    if (failed || ::stat(place.c_str(), &here) != 0) return folder;
    while (place.has_relative_path() && ::stat(place.parent_path().c_str(), &above) == 0 &&
           above.st_dev == here.st_dev) {
        place = place.parent_path();
    }
    return place;
}

std::int64_t free_bytes(const std::filesystem::path& folder) {
    struct statvfs status {};
    if (::statvfs(folder.c_str(), &status) != 0) return -1;
    return static_cast<std::int64_t>(status.f_bavail) * static_cast<std::int64_t>(status.f_frsize);
}

/// HDF5 leaves holes where no numbers are yet; the disk gives the space now or says that it has none.
void reserve_space(const std::filesystem::path& file) {
    const Descriptor descriptor(file, O_RDWR);
    struct stat status {};
    if (::fstat(descriptor.get(), &status) != 0) raise_system(fmt::format("cannot inspect {}", file.string()), errno);
    const std::int64_t needed = status.st_size, held = status.st_blocks * 512, free = free_bytes(folder_of(file));
    // Asking first spares everybody else on a disk that is too small a moment in which it is full.
    int reason = free >= 0 && free < needed - held ? ENOSPC : 0;
    if (reason == 0 && ::fallocate(descriptor.get(), 0, 0, needed) != 0) reason = errno;
    if (reason == EOPNOTSUPP || reason == ENOSYS) reason = 0;  // NFS before 4.2, old Lustre: no more can be known
    if (reason == ENOSPC || reason == EDQUOT) {
        throw Error(ExitCode::output,
                    fmt::format("no space left on {}: {} needs {} bytes, {} free{}", mount_of(folder_of(file)).string(),
                                file.string(), needed, free, reason == EDQUOT ? " (but the quota is used up)" : ""));
    }
    if (reason != 0) raise_system(fmt::format("cannot reserve {} bytes for {}", needed, file.string()), reason);
}

std::vector<std::int32_t> coordinates_of(const Scale& scale) {
    std::vector<std::int32_t> values = scale.values;
    if (values.empty()) {
        values.resize(static_cast<std::size_t>(scale.length));
        std::iota(values.begin(), values.end(), 0);
    }
    return values;
}

/// Writes a schema as netCDF-4 wants it: every axis of every variable has a scale with an id of its own.
class Skeleton {
public:
    Skeleton(Hdf5File& file, const Schema& schema) : file_(file), schema_(schema) {}

    void build() {
        for (const auto& scale : schema_.scales) add_scale(scale);
        for (const auto& variable : schema_.variables) add_variable(variable);
    }

private:
    void add_scale(const Scale& scale) {
        const std::string path = scale.path();
        file_.create_group(scale.group);
        if (scale.labels.empty()) {
            add_coordinates(scale, path);
        } else {
            add_labels(scale, path);
        }
        if (!scale.long_name.empty()) file_.set_attribute(path, "long_name", scale.long_name);
        file_.set_attribute(path, "units", "1");
    }

    void add_coordinates(const Scale& scale, const std::string& path) {
        const std::vector<std::int32_t> values = coordinates_of(scale);
        check_length(scale, std::ssize(values));
        file_.create_dataset(path, ValueType::i32, {scale.length});
        if (scale.length > 0) {
            file_.write(path, ValueType::i32, {{0}, {scale.length}, 0, 0},
                        reinterpret_cast<const std::byte*>(values.data()));
        }
        file_.make_scale(path, scale.name);
        file_.set_dimension_id(path, next_id_++);
    }

    /// Characters [labels, width] which are themselves the scale of the first axis, as netCDF-4 writes a coordinate of
    /// texts: HDF5 lets no scale have scales, so _Netcdf4Coordinates names the dimension of the second axis.
    void add_labels(const Scale& scale, const std::string& path) {
        check_length(scale, std::ssize(scale.labels));
        std::size_t width = 1;
        for (const auto& label : scale.labels) width = std::max(width, label.size());
        const auto width_id = width_dimension(scale.group, static_cast<std::int64_t>(width));
        file_.create_characters(path, scale.labels, static_cast<std::int64_t>(width));
        file_.make_scale(path, scale.name);
        file_.set_dimension_id(path, next_id_);
        file_.set_dimension_ids(path, {next_id_, width_id});
        file_.set_attribute(path, "_Encoding", "utf-8");
        ++next_id_;
    }

    std::int32_t width_dimension(const std::string& group, std::int64_t width) {
        const std::string path = fmt::format("{}{}string_{}", group, group.empty() ? "" : "/", width);
        const auto [place, is_new] = width_ids_.try_emplace(path, next_id_);
        if (is_new) {
            file_.create_dimension(path, width);
            file_.set_dimension_id(path, next_id_++);
        }
        return place->second;
    }

    void add_variable(const Variable& variable) {
        const std::string path = variable.path();
        file_.create_group(variable.group);
        file_.create_dataset(path, variable.type, schema_.shape_of(variable));
        for (std::size_t axis = 0; axis < variable.dims.size(); ++axis) {
            file_.attach_scale(path, static_cast<std::int64_t>(axis),
                               schema_.scale_of(variable, variable.dims[axis]).path());
        }
        file_.set_attribute(path, "long_name", variable.long_name);
        file_.set_attribute(path, "units", variable.units);
        if (!variable.missing.empty()) file_.set_attribute(path, "missing", variable.missing);
    }

    static void check_length(const Scale& scale, std::int64_t coordinates) {
        if (coordinates == scale.length) return;
        throw Error(ExitCode::internal, fmt::format("the scale {} of length {} has {} coordinates", scale.path(),
                                                    scale.length, coordinates));
    }

    Hdf5File& file_;
    const Schema& schema_;
    std::int32_t next_id_ = 0;
    std::map<std::string, std::int32_t> width_ids_;
};

void set_attributes(Hdf5File& file, const std::vector<Attribute>& attributes) {
    for (const auto& attribute : attributes) {
        if (!attribute.group.empty() && !file.has(attribute.group)) file.create_group(attribute.group);
        file.set_attribute(attribute.group, attribute.name, attribute.value);
    }
}

const Variable& variable_of(const Schema& schema, const Slab& slab) {
    check_slab(schema, slab);
    return schema.variables[static_cast<std::size_t>(slab.variable)];
}

void write_to(Hdf5File& file, const Schema& schema, const std::vector<Slab>& slabs) {
    for (const auto& slab : slabs) {
        const Variable& variable = variable_of(schema, slab);
        for (const auto& piece : pieces_of(slab, size_of(variable.type), largest_write)) {
            file.write(variable.path(), variable.type, piece, slab.data.data() + piece.offset);
        }
    }
}

void verify_box(const Hdf5File& file, const std::filesystem::path& name, const Variable& variable,
                const Checksum& checksum, std::vector<std::byte>& buffer) {
    const Slab box{checksum.variable, checksum.start, checksum.count, {}};
    const std::int64_t bytes = box.elements() * size_of(variable.type);
    buffer.resize(static_cast<std::size_t>(bytes));
    file.read(variable.path(), variable.type, {checksum.start, checksum.count, 0, bytes}, buffer.data());
    if (crc32c(0, buffer.data(), buffer.size()) == checksum.crc) return;
    throw Error(ExitCode::output,
                fmt::format("{} does not hold what was written: {} differs in the box at {}, count {}; the file system "
                            "lost data",
                            name.string(), variable.path(), text_of(checksum.start), text_of(checksum.count)));
}

bool holds(const Hdf5File& file, const Scale& scale) {
    if (!scale.labels.empty()) return file.read_texts(scale.path()) == scale.labels;
    const auto values = coordinates_of(scale);
    return file.read_numbers(scale.path()) == std::vector<double>(values.begin(), values.end());
}

/// What HDF5 reports while reading a result is the input's fault.
template <class F>
auto as_input(F&& f) {
    try {
        return f();
    } catch (const Error& error) {
        throw Error(ExitCode::input, error.what(), error.where());
    }
}

bool is_complete(const Hdf5File& file) {
    if (!file.has_attribute("", "complete")) return false;
    const auto value = file.attribute("", "complete");
    const auto* flag = std::get_if<std::int64_t>(&value);
    return flag != nullptr && *flag == 1;
}

std::string text_of_attribute(const Hdf5File& file, const std::string& path, const std::string& name) {
    if (!file.has_attribute(path, name)) return {};
    const AttributeValue value = file.attribute(path, name);
    const auto* text = std::get_if<std::string>(&value);
    return text == nullptr ? std::string() : *text;
}

std::pair<std::string, std::string> group_and_name(const std::string& path) {
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return {"", path};
    return {path.substr(0, slash), path.substr(slash + 1)};
}

Scale scale_in(const Hdf5File& file, const std::string& path) {
    auto [group, name] = group_and_name(path);
    Scale scale{std::move(group), std::move(name), 0, {}, text_of_attribute(file, path, "long_name"), {}};
    scale.length = file.shape(path).front();
    if (!file.type(path)) {
        scale.labels = file.read_texts(path);
        return scale;
    }
    for (const double value : file.read_numbers(path)) scale.values.push_back(static_cast<std::int32_t>(value));
    return scale;
}

// A scale without numbers stands for a width of texts alone, and is no axis of a variable.
Schema schema_in(const Hdf5File& file) {
    Schema schema;
    for (const std::string& path : file.datasets()) {
        if (file.is_scale(path)) {
            if (file.type(path) || file.shape(path).size() == 2) schema.scales.push_back(scale_in(file, path));
            continue;
        }
        const auto type = file.type(path);
        std::vector<std::string> dims = file.scales(path);
        if (!type || std::find(dims.begin(), dims.end(), "") != dims.end()) continue;
        auto [group, name] = group_and_name(path);
        schema.variables.push_back({std::move(group), std::move(name), std::move(dims), *type,
                                    text_of_attribute(file, path, "long_name"), text_of_attribute(file, path, "units"),
                                    text_of_attribute(file, path, "missing")});
    }
    return schema;
}

}  // namespace

void create_skeleton(const std::filesystem::path& temporary, const Schema& schema,
                     const std::vector<Attribute>& attributes) {
    try {
        auto file = Hdf5File::create(temporary);
        Skeleton(file, schema).build();
        set_attributes(file, attributes);
        file.flush();
        file.close();
        reserve_space(temporary);
    } catch (const Error&) {
        ::unlink(temporary.c_str());
        throw;
    }
}

std::vector<Checksum> checksums_of(const Schema& schema, std::span<const Slab> slabs) {
    std::vector<Checksum> checksums;
    for (const Slab& slab : slabs) {
        const Variable& variable = variable_of(schema, slab);
        for (Piece& piece : pieces_of(slab, size_of(variable.type), largest_read)) {
            const std::uint32_t crc = crc32c(0, slab.data.data() + piece.offset, static_cast<std::size_t>(piece.bytes));
            checksums.push_back({slab.variable, std::move(piece.start), std::move(piece.count), crc});
        }
    }
    return checksums;
}

std::string bytes_of(const std::vector<Checksum>& checksums) {
    std::string bytes;
    const auto put = [&bytes](std::int64_t number) {
        bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
    };
    for (const Checksum& checksum : checksums) {
        put(checksum.variable);
        put(checksum.crc);
        put(std::ssize(checksum.start));
        for (const std::int64_t start : checksum.start) put(start);
        for (const std::int64_t count : checksum.count) put(count);
    }
    return bytes;
}

std::vector<Checksum> checksums_of(std::string_view bytes) {
    const auto get = [&bytes] {
        std::int64_t number = 0;
        std::memcpy(&number, bytes.data(), sizeof number);
        bytes.remove_prefix(sizeof number);
        return number;
    };
    std::vector<Checksum> checksums;
    while (!bytes.empty()) {
        Checksum& checksum = checksums.emplace_back();
        checksum.variable = get();
        checksum.crc = static_cast<std::uint32_t>(get());
        const auto dims = static_cast<std::size_t>(get());
        for (std::size_t d = 0; d < dims; ++d) checksum.start.push_back(get());
        for (std::size_t d = 0; d < dims; ++d) checksum.count.push_back(get());
    }
    return checksums;
}

void verify(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Checksum>& checksums) {
    auto file = Hdf5File::open(temporary, Hdf5File::Access::read);
    std::vector<std::byte> buffer;
    for (const Checksum& checksum : checksums) {
        verify_box(file, temporary, schema.variables[static_cast<std::size_t>(checksum.variable)], checksum, buffer);
    }
    file.close();
}

void verify_structure(const std::filesystem::path& temporary, const Schema& schema,
                      const std::vector<Attribute>& attributes) {
    auto file = Hdf5File::open(temporary, Hdf5File::Access::read);
    const auto demand = [&](bool same, const std::string& what) {
        if (same) return;
        throw Error(ExitCode::output, fmt::format("{} does not hold what was written: {} differs; the file system lost "
                                                  "data",
                                                  temporary.string(), what));
    };
    for (const Scale& scale : schema.scales) demand(holds(file, scale), "the scale " + scale.path());
    for (const Variable& variable : schema.variables)
        demand(file.shape(variable.path()) == schema.shape_of(variable), "the shape of " + variable.path());
    for (const auto& [group, name, value] : attributes)
        demand(file.has_attribute(group, name) && file.attribute(group, name) == value, "the attribute " + name);
    file.close();
}

void append(const std::filesystem::path& temporary, const Schema& schema, const std::vector<Slab>& slabs,
            const std::vector<Attribute>& attributes) {
    ResultEditor editor(temporary);
    for (const Slab& slab : slabs) editor.write(schema, slab);
    for (const Attribute& attribute : attributes) editor.set(attribute);
    editor.close();
}

Attribute complete_attribute() { return {"", "complete", std::int64_t{1}}; }

struct ResultReader::State {
    Hdf5File file;
    std::filesystem::path name;

    AttributeValue attribute(const std::string& group, const std::string& attribute_name) const {
        if (!file.has_attribute(group, attribute_name)) {
            throw Error(ExitCode::input,
                        fmt::format("{} has no attribute {} in /{}", name.string(), attribute_name, group));
        }
        return as_input([&] { return file.attribute(group, attribute_name); });
    }

    [[noreturn]] void wrong_kind(const std::string& group, const std::string& attribute_name,
                                 const char* expected) const {
        throw Error(ExitCode::input, fmt::format("the attribute {} in /{} of {} is not {}", attribute_name, group,
                                                 name.string(), expected));
    }
};

ResultReader::ResultReader(const std::filesystem::path& file, bool in_progress) {
    state_ = as_input([&] {
        return std::make_unique<State>(State{Hdf5File::open(file, Hdf5File::Access::read), file});
    });
    if (in_progress || as_input([&] { return is_complete(state_->file); })) return;
    throw Error(ExitCode::input,
                fmt::format("{} is not a complete geom-mpi result: its attribute `complete` is not 1 (a "
                            "run that was stopped, or another program's file)",
                            file.string()));
}

ResultReader::ResultReader(std::unique_ptr<State> state) : state_(std::move(state)) {}

ResultReader::~ResultReader() = default;
ResultReader::ResultReader(ResultReader&&) noexcept = default;
ResultReader& ResultReader::operator=(ResultReader&&) noexcept = default;

Schema ResultReader::schema() const {
    return as_input([&] { return schema_in(state_->file); });
}

bool ResultReader::has(const std::string& path) const {
    return as_input([&] { return state_->file.has(path); });
}

std::vector<std::int64_t> ResultReader::shape(const std::string& path) const {
    return as_input([&] { return state_->file.shape(path); });
}

std::vector<double> ResultReader::read(const std::string& path) const {
    return as_input([&] { return state_->file.read_numbers(path); });
}

std::vector<double> ResultReader::read(const std::string& path, const std::vector<std::int64_t>& start,
                                       const std::vector<std::int64_t>& count) const {
    const auto whole = shape(path);
    bool fits = start.size() == whole.size() && count.size() == whole.size();
    std::int64_t elements = 1;
    for (std::size_t axis = 0; fits && axis < whole.size(); ++axis) {
        fits = start[axis] >= 0 && count[axis] >= 0 && start[axis] + count[axis] <= whole[axis];
        elements *= count[axis];
    }
    if (!fits) {
        throw Error(ExitCode::internal, fmt::format("{}: a box at {}, count {}, of shape {}", path, text_of(start),
                                                    text_of(count), text_of(whole)));
    }
    std::vector<double> numbers(static_cast<std::size_t>(elements));
    if (elements == 0) return numbers;
    as_input([&] {  // HDF5 widens f32 and i32
        state_->file.read(path, ValueType::f64, {start, count, 0, elements * 8},
                          reinterpret_cast<std::byte*>(numbers.data()));
    });
    return numbers;
}

void ResultReader::read_bytes(const std::string& path, ValueType type, const std::vector<std::int64_t>& start,
                              const std::vector<std::int64_t>& count, std::span<std::byte> out) const {
    as_input([&] {
        state_->file.read(path, type, {start, count, 0, static_cast<std::int64_t>(out.size())}, out.data());
    });
}

std::vector<std::string> ResultReader::labels(const std::string& path) const {
    return as_input([&] { return state_->file.read_texts(path); });
}

bool ResultReader::has_attribute(const std::string& group, const std::string& name) const {
    return state_->file.has_attribute(group, name);
}

std::vector<std::pair<std::string, AttributeValue>> ResultReader::attributes(const std::string& group) const {
    return as_input([&] {
        std::vector<std::pair<std::string, AttributeValue>> found;
        for (std::string& name : state_->file.attribute_names(group)) {
            AttributeValue value = state_->file.attribute(group, name);
            found.emplace_back(std::move(name), std::move(value));
        }
        return found;
    });
}

std::string ResultReader::text_attribute(const std::string& group, const std::string& name) const {
    auto value = state_->attribute(group, name);
    if (auto* text = std::get_if<std::string>(&value)) return std::move(*text);
    state_->wrong_kind(group, name, "a text");
}

std::vector<std::string> ResultReader::texts_attribute(const std::string& group, const std::string& name) const {
    auto value = state_->attribute(group, name);
    if (auto* texts = std::get_if<std::vector<std::string>>(&value)) return std::move(*texts);
    state_->wrong_kind(group, name, "a list of texts");
}

ResultEditor::ResultEditor(const std::filesystem::path& temporary)
    : file_(temporary),
      reader_(std::make_unique<ResultReader::State>(
          ResultReader::State{Hdf5File::open(temporary, Hdf5File::Access::update), temporary})) {}

void ResultEditor::write(const Schema& schema, const Slab& slab) { write_to(reader_.state_->file, schema, {slab}); }

void ResultEditor::set(const Attribute& attribute) { set_attributes(reader_.state_->file, {attribute}); }

void ResultEditor::close() {
    reader_.state_->file.flush();
    reader_.state_->file.close();
    sync_file(file_);  // space that runs out late is reported here
}

double ResultReader::number_attribute(const std::string& group, const std::string& name) const {
    const auto value = state_->attribute(group, name);
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
    if (const auto* number = std::get_if<double>(&value)) return *number;
    state_->wrong_kind(group, name, "a number");
}

}  // namespace geom
