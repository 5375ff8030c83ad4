#include "checkpoint/fingerprint.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>
#include <string_view>

#include "checkpoint/input_file.hpp"
#include "core/crc32c.hpp"
#include "core/error.hpp"

namespace geom {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t samples = 16, sample_bytes = std::int64_t{16} << 10;

// models--ORG--NAME/blobs/HASH, to which a snapshot's link leads: a git or LFS hash of the content. Empty for any other
// file.
std::string blob_name(const fs::path& file) {
    std::error_code error;
    if (!fs::is_symlink(fs::symlink_status(file, error))) return {};
    const fs::path real = fs::canonical(file, error);
    const std::string name = real.filename().string();
    const fs::path blobs = real.parent_path();
    const bool is_hash =
        (name.size() == 40 || name.size() == 64) && name.find_first_not_of("0123456789abcdef") == std::string::npos;
    const bool in_cache =
        blobs.filename() == "blobs" && blobs.parent_path().filename().string().starts_with("models--");
    return is_hash && in_cache ? name : std::string();
}

// The samples lie at equal distances, the first at the beginning and the last at the end; they may overlap.
std::uint32_t sampled(const fs::path& path, const FileStamp& stamp) {
    const InputFile file(path);
    const std::int64_t size = std::min(sample_bytes, stamp.bytes);
    std::vector<std::byte> sample(static_cast<std::size_t>(size));
    std::uint32_t crc = 0;
    for (std::int64_t i = 0; i < samples; ++i) {
        file.read((stamp.bytes - size) * i / (samples - 1), sample);
        crc = crc32c(crc, sample.data(), sample.size());
    }
    file.check_unchanged(stamp);
    return crc;
}

// Names, types, shapes and places of all tensors.
std::uint32_t headers_of(const Checkpoint& checkpoint) {
    std::uint32_t crc = 0;
    for (const TensorInfo& tensor : checkpoint.tensors()) {
        const std::string line = fmt::format("{} {} {} {} {}\n", tensor.name, name_of(tensor.dtype),
                                             fmt::join(tensor.shape, "x"), tensor.file, tensor.offset);
        crc = crc32c(crc, line.data(), line.size());
    }
    return crc;
}

// FNV-1a.
std::uint64_t hash_of(std::string_view text) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    return hash;
}

}  // namespace

Fingerprint fingerprint_of(const Checkpoint& checkpoint) {
    const std::string& config = checkpoint.config().text;
    Fingerprint print;
    print.contents = fmt::format(
        "model {}\ncommit {}\n{} layers\nconfig.json of {} bytes, CRC32C {:08x}\n{} tensors, CRC32C of their headers "
        "{:08x}\n",
        checkpoint.name(), checkpoint.commit(), checkpoint.config().layers, config.size(),
        crc32c(0, config.data(), config.size()), checkpoint.tensors().size(), headers_of(checkpoint));
    std::string places;
    for (std::size_t f = 0; f < checkpoint.files().size(); ++f) {
        const fs::path& file = checkpoint.files()[f];
        const FileStamp& stamp = checkpoint.stamps()[f];
        const std::string blob = blob_name(file);
        print.contents +=
            fmt::format("{} of {} bytes, {}\n", file.filename().string(), stamp.bytes,
                        blob.empty() ? fmt::format("CRC32C of samples {:08x}", sampled(file, stamp)) : "blob " + blob);
        if (blob.empty()) places += fmt::format("{} {}\n", stamp.inode, stamp.modified);
    }
    print.digest = fmt::format("{:016x}", hash_of(print.contents + places));
    return print;
}

std::pair<std::string, std::string> difference_of(const std::string& a, const std::string& b) {
    std::istringstream lines_of_a(a), lines_of_b(b);
    for (;;) {
        std::string line_a, line_b;
        const bool more_a = static_cast<bool>(std::getline(lines_of_a, line_a));
        const bool more_b = static_cast<bool>(std::getline(lines_of_b, line_b));
        if (line_a != line_b || (!more_a && !more_b)) return {line_a, line_b};
    }
}

}  // namespace geom
