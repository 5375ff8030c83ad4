#include "checkpoint/input_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "core/error.hpp"

namespace geom {
namespace {

[[noreturn]] void fail(const std::string& shown, const std::string& reason) {
    throw Error(ExitCode::input, shown + ": " + reason);
}

std::string reason_of(int error) { return std::generic_category().message(error); }

void demand_regular(const struct stat& status, const std::string& shown) {
    if (S_ISREG(status.st_mode)) return;
    fail(shown, S_ISDIR(status.st_mode) ? "is a folder, but has to be a file"
                                        : "is neither a file nor a link to one (a pipe, socket or device)");
}

}  // namespace

FileStamp stamp_of(int descriptor, const std::string& shown) {
    struct stat status {};
    if (::fstat(descriptor, &status) != 0) fail(shown, "cannot be inspected: " + reason_of(errno));
    return {status.st_dev, status.st_ino, status.st_size,
            std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

void check_unchanged(int descriptor, const FileStamp& expected, const std::string& shown) {
    const FileStamp now = stamp_of(descriptor, shown);
    if (now == expected) return;
    const bool same_file = now.device == expected.device && now.inode == expected.inode;
    fail(shown, fmt::format("was {} while it was in use ({} bytes when its header was read, {} now); what was read is "
                            "not believed: start again when nothing writes to it",
                            same_file ? "written to" : "replaced by another file", expected.bytes, now.bytes));
}

InputFile::InputFile(const std::filesystem::path& path) : shown_(path.string()) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) fail(shown_, "cannot be read: " + reason_of(errno));
    demand_regular(status, shown_);
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) fail(shown_, "cannot be opened: " + reason_of(errno));
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(descriptor_);
        fail(shown_, "changed while it was being opened");
    }
    stamp_ = stamp_of(descriptor_, shown_);
}

InputFile::~InputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : shown_(std::move(other.shown_)), descriptor_(std::exchange(other.descriptor_, -1)), stamp_(other.stamp_) {}

void InputFile::read(std::int64_t offset, std::span<std::byte> to) const {
    std::size_t done = 0;
    while (done < to.size()) {
        const std::size_t piece = std::min<std::size_t>(to.size() - done, std::size_t{1} << 26);
        const ssize_t got = ::pread(descriptor_, to.data() + done, piece, offset + static_cast<std::int64_t>(done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(shown_, fmt::format("reading {} bytes at {} failed: {}", piece, offset, reason_of(errno)));
        if (got == 0) {
            fail(shown_, fmt::format("ends {} bytes into a read of {} bytes at {}; it was cut while it was being read",
                                     done, to.size(), offset));
        }
        done += static_cast<std::size_t>(got);
    }
}

std::string read_text_file(const std::filesystem::path& path, std::int64_t limit) {
    const InputFile file(path);
    if (file.bytes() > limit) {
        fail(path.string(),
             fmt::format("{} bytes, but at most {} are believed to be what its name says", file.bytes(), limit));
    }
    std::string text(static_cast<std::size_t>(file.bytes()), '\0');
    file.read(0, std::as_writable_bytes(std::span(text)));
    return text;
}

void check_inside(const std::filesystem::path& file, const std::filesystem::path& allowed_root) {
    std::error_code error;
    const auto real = std::filesystem::canonical(file, error);
    if (error) {
        const bool link = std::filesystem::is_symlink(std::filesystem::symlink_status(file, error));
        fail(file.string(), link ? "is a link that leads nowhere; the download is partial" : "is missing");
    }
    const auto root = std::filesystem::canonical(allowed_root, error);
    if (error) fail(allowed_root.string(), "cannot be read: " + error.message());
    const auto [rest, _] = std::mismatch(root.begin(), root.end(), real.begin(), real.end());
    if (rest == root.end()) return;
    fail(file.string(),
         fmt::format("is a link to {}, outside {}; links may not lead out of the model's folder: put the "
                     "file itself there, or give --model the folder it is in",
                     real.string(), root.string()));
}

}  // namespace geom
