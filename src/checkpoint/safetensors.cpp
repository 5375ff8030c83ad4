#include "checkpoint/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <span>

#include "checkpoint/input_file.hpp"
#include "checkpoint/json.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

constexpr std::int64_t length_bytes = 8;

[[noreturn]] void fail(const std::string& shown, const std::string& reason) {
    throw Error(ExitCode::input, shown + ": " + reason);
}

/// The length of the JSON text, believed only within the format's limit and the file.
std::int64_t header_length(std::string_view prefix, std::int64_t file_bytes, const std::string& shown) {
    if (file_bytes < length_bytes || std::ssize(prefix) < length_bytes) {
        fail(shown, fmt::format("{} bytes are too few for a safetensors file, which starts with the 8-byte length of "
                                "its header; the download is cut short",
                                std::min(file_bytes, std::ssize(prefix))));
    }
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
        length = (length << 8) | static_cast<unsigned char>(prefix[static_cast<std::size_t>(i)]);
    if (length > static_cast<std::uint64_t>(max_safetensors_header)) {
        fail(shown, fmt::format("header of {} bytes, but the format allows at most {}; this is not a safetensors file",
                                length, max_safetensors_header));
    }
    const auto n = static_cast<std::int64_t>(length);
    if (n > file_bytes - length_bytes) {
        fail(shown, fmt::format("header of {} bytes, but the file has only {} after the length; the download is cut "
                                "short",
                                n, file_bytes - length_bytes));
    }
    return n;
}

void check_metadata(const Json& value, const std::string& shown) {
    if (!value.is_object()) fail(shown, fmt::format("__metadata__ is {}, but has to be an object", kind_of(value)));
    for (const auto& [key, entry] : value.items()) {
        if (entry.is_string()) continue;
        fail(shown, fmt::format("__metadata__: {} is {}, but has to be a string", in_quotes(key), kind_of(entry)));
    }
}

const Json& member_of(const Json& object, const char* key, const std::string& what) {
    const auto at = object.find(key);
    if (at == object.end()) fail(what, fmt::format("'{}' is missing; the header is damaged", key));
    return *at;
}

std::vector<std::int64_t> integers_of(const Json& object, const char* key, const std::string& what) {
    const Json& list = member_of(object, key, what);
    if (!list.is_array()) fail(what, fmt::format("'{}' is {}, but has to be an array", key, kind_of(list)));
    std::vector<std::int64_t> numbers;
    numbers.reserve(list.size());
    for (const Json& number : list) {
        const std::string name = fmt::format("{}: entry {} of '{}'", what, numbers.size(), key);
        numbers.push_back(json_integer(number, 0, std::numeric_limits<std::int64_t>::max(), name));
    }
    return numbers;
}

DType dtype_of(const Json& object, const std::string& what) {
    const Json& name = member_of(object, "dtype", what);
    if (!name.is_string()) fail(what, fmt::format("'dtype' is {}, but has to be a string", kind_of(name)));
    const auto dtype = dtype_named(name.get_ref<const std::string&>());
    if (!dtype) {
        fail(what, fmt::format("dtype {} is not known; known are BF16 F16 F32 F64 F8_E4M3 F8_E5M2 I8 I16 I32 I64 U8 "
                               "U16 U32 U64 BOOL",
                               in_quotes(name.get_ref<const std::string&>())));
    }
    return *dtype;
}

/// Elements times their size; refuses products that leave 63 bits.
std::int64_t bytes_of(const TensorInfo& tensor, const std::string& what) {
    std::int64_t bytes = size_of(tensor.dtype);
    for (const std::int64_t n : tensor.shape) {
        if (!__builtin_mul_overflow(bytes, n, &bytes)) continue;
        fail(what, fmt::format("shape [{}] of {} overflows 64 bits; the header is damaged or malicious",
                               fmt::join(tensor.shape, ", "), name_of(tensor.dtype)));
    }
    return bytes;
}

/// One entry of the header; offset still counts from the end of the header.
TensorInfo tensor_of(const std::string& name, const Json& value, const std::string& shown) {
    const std::string what = fmt::format("{}: tensor {}", shown, in_quotes(name));
    if (!value.is_object()) fail(what, fmt::format("is {}, but has to be an object", kind_of(value)));
    TensorInfo tensor;
    tensor.name = name;
    tensor.dtype = dtype_of(value, what);
    tensor.shape = integers_of(value, "shape", what);
    const auto range = integers_of(value, "data_offsets", what);
    if (range.size() != 2 || range[0] > range[1]) {
        fail(what, fmt::format("data_offsets [{}] are not a begin and an end", fmt::join(range, ", ")));
    }
    tensor.offset = range[0];
    tensor.bytes = bytes_of(tensor, what);
    if (tensor.bytes != range[1] - range[0]) {
        fail(what, fmt::format("shape [{}] of {} takes {} bytes, but data_offsets [{}, {}] are {} bytes; the header is "
                               "damaged",
                               fmt::join(tensor.shape, ", "), name_of(tensor.dtype), tensor.bytes, range[0], range[1],
                               range[1] - range[0]));
    }
    return tensor;
}

/// Demands that the tensors, one after the other, fill the file exactly.
void check_layout(const std::vector<TensorInfo>& tensors, std::int64_t data_bytes, const std::string& shown) {
    std::vector<const TensorInfo*> order;
    order.reserve(tensors.size());
    for (const TensorInfo& tensor : tensors) order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
        return a->offset != b->offset ? a->offset < b->offset : a->bytes < b->bytes;
    });
    std::int64_t end = 0;
    for (const TensorInfo* tensor : order) {
        if (tensor->offset != end) {
            fail(shown, fmt::format("tensor {}: its data begin at {}, but those before it end at {}; tensors may "
                                    "neither overlap nor leave gaps; the header is damaged",
                                    in_quotes(tensor->name), tensor->offset, end));
        }
        end += tensor->bytes;
    }
    if (end != data_bytes) {
        fail(shown, fmt::format("its tensors take {} bytes, but {} bytes follow the header; the download is {}", end,
                                data_bytes, end > data_bytes ? "cut short" : "damaged"));
    }
}

}  // namespace

std::vector<TensorInfo> parse_safetensors_header(std::string_view prefix, std::int64_t file_bytes,
                                                 const std::string& shown) {
    const std::int64_t length = header_length(prefix, file_bytes, shown);
    if (std::ssize(prefix) - length_bytes < length) {
        fail(shown, fmt::format("header of {} bytes, of which only {} could be read", length,
                                std::ssize(prefix) - length_bytes));
    }
    const std::string_view text = prefix.substr(length_bytes, static_cast<std::size_t>(length));
    if (!text.starts_with('{')) fail(shown, "its header does not start with '{'; this is not a safetensors file");

    std::vector<TensorInfo> tensors;
    parse_json_object(text, shown + " (header)", [&](const std::string& name, const Json& value) {
        if (name == "__metadata__") {
            check_metadata(value, shown);
        } else {
            tensors.push_back(tensor_of(name, value, shown));
        }
    });
    check_layout(tensors, file_bytes - length_bytes - length, shown);
    for (TensorInfo& tensor : tensors) tensor.offset += length_bytes + length;
    return tensors;
}

std::vector<TensorInfo> read_safetensors_header(const std::string& path, FileStamp& stamp) {
    const InputFile file(path);
    stamp = file.stamp();
    const std::int64_t file_bytes = file.bytes();
    std::string prefix(static_cast<std::size_t>(std::min(file_bytes, length_bytes)), '\0');
    file.read(0, std::as_writable_bytes(std::span(prefix)));
    const std::int64_t length = header_length(prefix, file_bytes, path);
    prefix.resize(static_cast<std::size_t>(length_bytes + length));
    file.read(length_bytes, std::as_writable_bytes(std::span(prefix)).subspan(length_bytes));
    return parse_safetensors_header(prefix, file_bytes, path);
}

}  // namespace geom
