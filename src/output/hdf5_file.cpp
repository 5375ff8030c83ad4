#include "output/hdf5_file.hpp"

#include <fmt/format.h>
#include <hdf5.h>
#include <hdf5_hl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "core/error.hpp"

namespace geom {

namespace {

static_assert(std::is_same_v<hid_t, std::int64_t>, "Hdf5Handle keeps identifiers as int64");

// ---- what went wrong

struct Failure {
    std::string innermost;    ///< of HDF5's stack of messages
    std::string reason;       ///< the system's, when HDF5 gives one
    int system_error = 0;     ///< errno, when HDF5 gives one
    bool in_locking = false;  ///< a file lock was refused
};

std::string between(const std::string& text, const std::string& open, const std::string& close) {
    const auto begin = text.find(open);
    if (begin == std::string::npos) return {};
    const auto end = text.find(close, begin + open.size());
    return end == std::string::npos ? std::string() : text.substr(begin + open.size(), end - begin - open.size());
}

/// HDF5 writes "file write failed: time = ..., errno = 28, error message = 'No space left on device', buf = 0x...".
void take(Failure& failure, const char* description) {
    const std::string text = description == nullptr ? "" : description;
    if (text.find("lock") != std::string::npos && text.find("file") != std::string::npos) failure.in_locking = true;
    if (const auto reason = between(text, "error message = '", "'"); !reason.empty() && failure.reason.empty()) {
        failure.reason = reason;
        const auto number = between(text, "errno = ", ",");
        std::from_chars(number.data(), number.data() + number.size(), failure.system_error);
    }
    if (failure.innermost.empty()) {
        // What follows the errno are addresses and times: of no use to a reader.
        failure.innermost = failure.reason.empty() ? text : text.substr(0, text.find_first_of(":,"));
    }
}

/// The error stack of the HDF5 call that failed last, innermost message first.
Failure last_failure() {
    Failure failure;
    H5Ewalk2(
        H5E_DEFAULT, H5E_WALK_UPWARD,
        [](unsigned, const H5E_error2_t* error, void* into) -> herr_t {
            take(*static_cast<Failure*>(into), error->desc);
            return 0;
        },
        &failure);
    return failure;
}

[[noreturn]] void raise(const Failure& failure, const std::string& what) {
    if (failure.reason.empty()) {
        throw Error(ExitCode::output, fmt::format("{}: HDF5 says: {}", what,
                                                  failure.innermost.empty() ? "no reason" : failure.innermost));
    }
    throw Error(ExitCode::output, fmt::format("{}: {} (HDF5: {})", what, failure.reason, failure.innermost));
}

// ---- handles

Hdf5Handle owned(hid_t id, Hdf5Handle::Close close, const std::string& what) {
    check_hdf5(id, what);
    return {id, close};
}

Hdf5Handle dataspace(const std::vector<std::int64_t>& shape) {
    if (shape.empty()) return owned(H5Screate(H5S_SCALAR), H5Sclose, "cannot make a scalar dataspace");
    const std::vector<hsize_t> dims(shape.begin(), shape.end());
    return owned(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose,
                 fmt::format("cannot make a dataspace of {} dimensions", dims.size()));
}

Hdf5Handle utf8_text() {
    auto type = owned(H5Tcopy(H5T_C_S1), H5Tclose, "cannot make a text type");
    check_hdf5(H5Tset_size(type.id(), H5T_VARIABLE), "cannot make a text type");
    check_hdf5(H5Tset_cset(type.id(), H5T_CSET_UTF8), "cannot make a text type");
    return type;
}

/// As the file stores them: little-endian, whatever the machine.
hid_t stored(ValueType type) {
    switch (type) {
        case ValueType::f64:
            return H5T_IEEE_F64LE;
        case ValueType::f32:
            return H5T_IEEE_F32LE;
        case ValueType::i32:
            return H5T_STD_I32LE;
    }
    throw Error(ExitCode::internal, "an unknown value type");
}

hid_t in_memory(ValueType type) {
    switch (type) {
        case ValueType::f64:
            return H5T_NATIVE_DOUBLE;
        case ValueType::f32:
            return H5T_NATIVE_FLOAT;
        case ValueType::i32:
            return H5T_NATIVE_INT32;
    }
    throw Error(ExitCode::internal, "an unknown value type");
}

std::vector<std::int64_t> extent(hid_t space) {
    std::vector<hsize_t> dims(static_cast<std::size_t>(std::max(0, H5Sget_simple_extent_ndims(space))));
    H5Sget_simple_extent_dims(space, dims.data(), nullptr);
    return {dims.begin(), dims.end()};
}

/// Format 1.8: dense attributes, without which a scale cannot be attached to more than about 4086 variables.
Hdf5Handle file_access() {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors become exceptions; HDF5 need not print them too
    auto access = owned(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "cannot prepare HDF5");
    check_hdf5(H5Pset_libver_bounds(access.id(), H5F_LIBVER_V18, H5F_LIBVER_V18), "cannot choose the HDF5 format");
    check_hdf5(H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG), "cannot prepare HDF5");
    return access;
}

/// A file that is held by another program is no reason to go on without locks; a file system that has none is.
void go_on_without_locks(hid_t access, const Failure& failure, const std::filesystem::path& file, const char* verb) {
    const auto what = fmt::format("cannot {} {}", verb, file.string());
    if (!failure.in_locking) raise(failure, what);
    if (failure.system_error == EAGAIN) throw Error(ExitCode::output, what + ": another program has it open");
    static bool said = false;
    if (!std::exchange(said, true)) {
        fmt::print(stderr,
                   "geom-mpi: no file locks for {} ({}): going on without, as with HDF5_USE_FILE_LOCKING=FALSE\n",
                   file.string(), failure.reason.empty() ? failure.innermost : failure.reason);
    }
    check_hdf5(H5Pset_file_locking(access, false, true), "cannot switch HDF5's file locks off");
}

/// `open` is H5Fopen or H5Fcreate with the access list it is given.
template <class Open>
Hdf5Handle open_serially(const std::filesystem::path& file, const char* verb, Open open) {
    const auto access = file_access();
    hid_t id = open(access.id());
    if (id < 0) {
        go_on_without_locks(access.id(), last_failure(), file, verb);
        id = open(access.id());
    }
    return owned(id, H5Fclose, fmt::format("cannot {} {}", verb, file.string()));
}

const char* object_name(const std::string& path) { return path.empty() ? "/" : path.c_str(); }

/// The selection of a piece in its dataset, and the dense box of the same shape in memory.
struct Selection {
    Hdf5Handle in_file;
    Hdf5Handle in_memory;
};

Selection select(hid_t dataset, const Piece& piece, const std::string& what) {
    Selection selection{owned(H5Dget_space(dataset), H5Sclose, what), dataspace(piece.count)};
    if (piece.count.empty()) return selection;
    const std::vector<hsize_t> start(piece.start.begin(), piece.start.end());
    const std::vector<hsize_t> count(piece.count.begin(), piece.count.end());
    check_hdf5(
        H5Sselect_hyperslab(selection.in_file.id(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
        what);
    return selection;
}

// ---- attributes, read

AttributeValue read_texts_attribute(hid_t attribute, hid_t type, const std::vector<std::int64_t>& shape, bool scalar,
                                    const std::string& what) {
    std::size_t n = 1;
    for (const auto count : shape) n *= static_cast<std::size_t>(count);
    std::vector<std::string> texts(n);
    if (n == 0) return texts;
    if (H5Tis_variable_str(type) > 0) {
        const auto memory = utf8_text();
        std::vector<char*> pointers(n, nullptr);
        const auto space = owned(H5Aget_space(attribute), H5Sclose, what);
        check_hdf5(H5Aread(attribute, memory.id(), pointers.data()), what);
        for (std::size_t i = 0; i < n; ++i) texts[i] = pointers[i] == nullptr ? "" : pointers[i];
        check_hdf5(H5Dvlen_reclaim(memory.id(), space.id(), H5P_DEFAULT, pointers.data()), what);
    } else {
        const std::size_t width = H5Tget_size(type);
        std::vector<char> bytes(n * width + 1, '\0');
        check_hdf5(H5Aread(attribute, type, bytes.data()), what);
        for (std::size_t i = 0; i < n; ++i) {
            const char* begin = bytes.data() + i * width;
            texts[i].assign(begin, std::find(begin, begin + width, '\0'));
        }
    }
    if (scalar) return texts.front();
    return texts;
}

}  // namespace

std::string hdf5_version() {
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    return fmt::format("{}.{}.{}", major, minor, release);
}

void start_hdf5() {
    check_hdf5(H5dont_atexit(), "cannot prepare HDF5");
    check_hdf5(H5open(), "cannot prepare HDF5");
}

void check_hdf5(std::int64_t status, const std::string& what) {
    if (status < 0) raise(last_failure(), what);
}

void Hdf5Handle::close(const std::string& what) { check_hdf5(close_(release()), what); }

std::string Hdf5File::place(const char* verb, const std::string& path) const {
    return fmt::format("cannot {} {} in {}", verb, path.empty() ? "/" : path, name_.string());
}

Hdf5File Hdf5File::create(const std::filesystem::path& file) {
    auto properties = owned(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "cannot prepare HDF5");
    check_hdf5(H5Pset_link_creation_order(properties.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
               "cannot prepare HDF5");
    return {
        open_serially(file, "create",
                      [&](hid_t access) { return H5Fcreate(file.c_str(), H5F_ACC_TRUNC, properties.id(), access); }),
        file};
}

Hdf5File Hdf5File::open(const std::filesystem::path& file, Access access) {
    const unsigned flags = access == Access::read ? H5F_ACC_RDONLY : H5F_ACC_RDWR;
    return {open_serially(file, "open", [&](hid_t list) { return H5Fopen(file.c_str(), flags, list); }), file};
}

Hdf5Handle Hdf5File::open_dataset(const std::string& path) const {
    return owned(H5Dopen2(file_.id(), path.c_str(), H5P_DEFAULT), H5Dclose, place("open", path));
}

Hdf5Handle Hdf5File::open_object(const std::string& path) const {
    return owned(H5Oopen(file_.id(), object_name(path), H5P_DEFAULT), H5Oclose, place("open", path));
}

void Hdf5File::create_group(const std::string& path) {
    // Variables are listed in the order they were made in, not by name.
    const auto properties = owned(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "cannot prepare HDF5");
    check_hdf5(H5Pset_link_creation_order(properties.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
               "cannot prepare HDF5");
    for (std::size_t end = 0; end != std::string::npos && !path.empty();) {
        end = path.find('/', end + 1);
        const std::string part = path.substr(0, end);
        const htri_t exists = H5Lexists(file_.id(), part.c_str(), H5P_DEFAULT);
        check_hdf5(exists, place("look for", part));
        if (exists > 0) continue;
        owned(H5Gcreate2(file_.id(), part.c_str(), H5P_DEFAULT, properties.id(), H5P_DEFAULT), H5Gclose,
              place("create", part))
            .close(place("create", part));
    }
}

void Hdf5File::create_dataset(const std::string& path, ValueType type, const std::vector<std::int64_t>& shape) {
    const auto space = dataspace(shape);
    const auto properties = owned(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "cannot prepare HDF5");
    check_hdf5(H5Pset_layout(properties.id(), H5D_CONTIGUOUS), place("lay out", path));
    check_hdf5(H5Pset_alloc_time(properties.id(), H5D_ALLOC_TIME_EARLY), place("allocate", path));
    check_hdf5(H5Pset_fill_time(properties.id(), H5D_FILL_TIME_NEVER), place("allocate", path));
    owned(H5Dcreate2(file_.id(), path.c_str(), stored(type), space.id(), H5P_DEFAULT, properties.id(), H5P_DEFAULT),
          H5Dclose, place("create", path))
        .close(place("create", path));
}

void Hdf5File::create_characters(const std::string& path, const std::vector<std::string>& texts, std::int64_t width) {
    const auto row = static_cast<std::size_t>(width);
    std::string bytes;
    for (const auto& text : texts) {
        bytes.append(text, 0, row);
        bytes.resize(bytes.size() + row - std::min(row, text.size()));
    }
    const auto space = dataspace({std::ssize(texts), width});
    auto dataset =
        owned(H5Dcreate2(file_.id(), path.c_str(), H5T_C_S1, space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
              H5Dclose, place("create", path));
    check_hdf5(H5Dwrite(dataset.id(), H5T_C_S1, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), place("write", path));
    dataset.close(place("write", path));
}

void Hdf5File::create_dimension(const std::string& path, std::int64_t length) {
    const auto space = dataspace({length});
    owned(H5Dcreate2(file_.id(), path.c_str(), H5T_IEEE_F32BE, space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
          H5Dclose, place("create", path))
        .close(place("create", path));
    make_scale(path, fmt::format("This is a netCDF dimension but not a netCDF variable. {:10}", length));
}

void Hdf5File::make_scale(const std::string& path, const std::string& name) {
    const auto what = place("make a dimension scale of", path);
    auto dataset = open_dataset(path);
    check_hdf5(H5DSset_scale(dataset.id(), name.c_str()), what);
    dataset.close(what);
}

void Hdf5File::attach_scale(const std::string& path, std::int64_t axis, const std::string& scale) {
    const auto what = place(fmt::format("attach the scale {} to", scale).c_str(), path);
    auto dataset = open_dataset(path), scale_dataset = open_dataset(scale);
    check_hdf5(H5DSattach_scale(dataset.id(), scale_dataset.id(), static_cast<unsigned>(axis)), what);
    scale_dataset.close(what);
    dataset.close(what);
}

void Hdf5File::set_raw_attribute(const std::string& path, const std::string& name, std::int64_t type,
                                 const std::vector<std::int64_t>& shape, const void* data) {
    const auto what = place(fmt::format("write the attribute {} of", name).c_str(), path);
    auto object = open_object(path);
    const htri_t exists = H5Aexists(object.id(), name.c_str());
    check_hdf5(exists, what);
    if (exists > 0) check_hdf5(H5Adelete(object.id(), name.c_str()), what);
    const auto space = dataspace(shape);
    auto attribute =
        owned(H5Acreate2(object.id(), name.c_str(), type, space.id(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, what);
    if (data != nullptr) check_hdf5(H5Awrite(attribute.id(), type, data), what);  // null: a list of nothing
    attribute.close(what);
    object.close(what);
}

void Hdf5File::set_attribute(const std::string& path, const std::string& name, const AttributeValue& value) {
    if (const auto* integer = std::get_if<std::int64_t>(&value)) {
        set_raw_attribute(path, name, H5T_NATIVE_INT64, {}, integer);
    } else if (const auto* number = std::get_if<double>(&value)) {
        set_raw_attribute(path, name, H5T_NATIVE_DOUBLE, {}, number);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
        const char* pointer = text->c_str();
        set_raw_attribute(path, name, utf8_text().id(), {}, &pointer);
    } else {
        std::vector<const char*> pointers;
        for (const auto& one : std::get<std::vector<std::string>>(value)) pointers.push_back(one.c_str());
        set_raw_attribute(path, name, utf8_text().id(), {std::ssize(pointers)}, pointers.data());
    }
}

void Hdf5File::set_dimension_id(const std::string& path, std::int32_t id) {
    set_raw_attribute(path, "_Netcdf4Dimid", H5T_NATIVE_INT32, {}, &id);
}

void Hdf5File::set_dimension_ids(const std::string& path, const std::vector<std::int32_t>& ids) {
    set_raw_attribute(path, "_Netcdf4Coordinates", H5T_NATIVE_INT32, {std::ssize(ids)}, ids.data());
}

void Hdf5File::write(const std::string& path, ValueType type, const Piece& piece, const std::byte* data) {
    const auto what = place("write", path);
    auto dataset = open_dataset(path);
    const auto selection = select(dataset.id(), piece, what);
    check_hdf5(
        H5Dwrite(dataset.id(), in_memory(type), selection.in_memory.id(), selection.in_file.id(), H5P_DEFAULT, data),
        what);
    dataset.close(what);
}

void Hdf5File::read(const std::string& path, ValueType type, const Piece& piece, std::byte* data) const {
    const auto what = place("read", path);
    const auto dataset = open_dataset(path);
    const auto selection = select(dataset.id(), piece, what);
    check_hdf5(
        H5Dread(dataset.id(), in_memory(type), selection.in_memory.id(), selection.in_file.id(), H5P_DEFAULT, data),
        what);
}

std::vector<std::string> Hdf5File::datasets() const {
    std::vector<std::string> paths;
    const auto add = [](hid_t, const char* path, const H5L_info_t*, void* list) {
        static_cast<std::vector<std::string>*>(list)->emplace_back(path);
        return herr_t{0};
    };
    check_hdf5(H5Lvisit(file_.id(), H5_INDEX_NAME, H5_ITER_INC, add, &paths), place("list", ""));
    std::erase_if(paths, [this](const std::string& path) { return !has(path); });
    return paths;
}

std::optional<ValueType> Hdf5File::type(const std::string& path) const {
    const auto stored_type = owned(H5Dget_type(open_dataset(path).id()), H5Tclose, place("read", path));
    for (const ValueType candidate : {ValueType::f64, ValueType::f32, ValueType::i32}) {
        if (H5Tequal(stored_type.id(), stored(candidate)) > 0) return candidate;
    }
    return {};
}

bool Hdf5File::holds_integers(const std::string& path) const {
    const auto stored_type = owned(H5Dget_type(open_dataset(path).id()), H5Tclose, place("read", path));
    return H5Tget_class(stored_type.id()) == H5T_INTEGER;
}

bool Hdf5File::is_scale(const std::string& path) const { return H5DSis_scale(open_dataset(path).id()) > 0; }

std::vector<std::string> Hdf5File::scales(const std::string& path) const {
    const auto take_name = [](hid_t, unsigned, hid_t scale, void* into) {
        std::array<char, 256> name{};
        H5DSget_scale_name(scale, name.data(), name.size());
        *static_cast<std::string*>(into) = name.data();
        return herr_t{1};  // one an axis
    };
    const auto dataset = open_dataset(path);
    std::vector<std::string> names(shape(path).size());
    for (unsigned axis = 0; axis < names.size(); ++axis) {
        if (H5DSget_num_scales(dataset.id(), axis) <= 0) continue;
        check_hdf5(H5DSiterate_scales(dataset.id(), axis, nullptr, take_name, &names[axis]),
                   place("read the axes of", path));
    }
    return names;
}

bool Hdf5File::has(const std::string& path) const {
    for (std::size_t end = 0; end != std::string::npos;) {  // H5Lexists fails when a group on the way is missing
        end = path.find('/', end + 1);
        if (H5Lexists(file_.id(), path.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
    }
    const auto object = open_object(path);
    return H5Iget_type(object.id()) == H5I_DATASET;
}

std::int64_t Hdf5File::offset(const std::string& path) const {
    const haddr_t offset = H5Dget_offset(open_dataset(path).id());
    if (offset == HADDR_UNDEF) throw Error(ExitCode::output, place("find the numbers of", path));
    return static_cast<std::int64_t>(offset);
}

std::vector<std::int64_t> Hdf5File::shape(const std::string& path) const {
    const auto dataset = open_dataset(path);
    return extent(owned(H5Dget_space(dataset.id()), H5Sclose, place("read", path)).id());
}

std::vector<double> Hdf5File::read_numbers(const std::string& path) const {
    const auto dataset = open_dataset(path);
    const auto space = owned(H5Dget_space(dataset.id()), H5Sclose, place("read", path));
    const auto elements = H5Sget_simple_extent_npoints(space.id());
    check_hdf5(elements, place("read", path));
    std::vector<double> numbers(static_cast<std::size_t>(elements));
    check_hdf5(H5Dread(dataset.id(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers.data()),
               place("read", path));
    return numbers;
}

std::vector<std::string> Hdf5File::read_texts(const std::string& path) const {
    const auto counts = shape(path);
    if (counts.size() != 2) throw Error(ExitCode::output, place("read the labels", path));
    const auto width = static_cast<std::size_t>(counts[1]);
    std::vector<char> bytes(static_cast<std::size_t>(counts[0]) * width);
    check_hdf5(H5Dread(open_dataset(path).id(), H5T_C_S1, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()),
               place("read", path));
    std::vector<std::string> texts;
    for (auto row = bytes.begin(); row != bytes.end(); row += std::ssize(bytes) / counts[0]) {
        texts.emplace_back(row, std::find(row, row + counts[1], '\0'));
    }
    return texts;
}

bool Hdf5File::has_attribute(const std::string& path, const std::string& name) const {
    return H5Aexists_by_name(file_.id(), object_name(path), name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Hdf5File::attribute_names(const std::string& path) const {
    const auto what = place("list the attributes of", path);
    const auto object = open_object(path);
    std::vector<std::string> names;
    const auto add = [](hid_t, const char* name, const H5A_info_t*, void* list) {
        static_cast<std::vector<std::string>*>(list)->emplace_back(name);
        return herr_t{0};
    };
    hsize_t at = 0;
    check_hdf5(H5Aiterate2(object.id(), H5_INDEX_NAME, H5_ITER_INC, &at, add, &names), what);
    return names;
}

AttributeValue Hdf5File::attribute(const std::string& path, const std::string& name) const {
    const auto what = place(fmt::format("read the attribute {} of", name).c_str(), path);
    const auto attribute =
        owned(H5Aopen_by_name(file_.id(), object_name(path), name.c_str(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, what);
    const auto type = owned(H5Aget_type(attribute.id()), H5Tclose, what);
    const auto space = owned(H5Aget_space(attribute.id()), H5Sclose, what);
    const bool scalar = H5Sget_simple_extent_type(space.id()) == H5S_SCALAR;
    const auto kind = H5Tget_class(type.id());
    if (kind == H5T_STRING) return read_texts_attribute(attribute.id(), type.id(), extent(space.id()), scalar, what);
    if (!scalar || (kind != H5T_INTEGER && kind != H5T_FLOAT)) {
        throw Error(ExitCode::output, what + ": neither a number nor text");
    }
    if (kind == H5T_INTEGER) {
        std::int64_t integer = 0;
        check_hdf5(H5Aread(attribute.id(), H5T_NATIVE_INT64, &integer), what);
        return integer;
    }
    double number = 0.0;
    check_hdf5(H5Aread(attribute.id(), H5T_NATIVE_DOUBLE, &number), what);
    return number;
}

void Hdf5File::flush() {
    check_hdf5(H5Fflush(file_.id(), H5F_SCOPE_GLOBAL), fmt::format("cannot write {}", name_.string()));
}

void Hdf5File::close() { file_.close(fmt::format("cannot close {}", name_.string())); }

}  // namespace geom
