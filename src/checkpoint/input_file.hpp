// Files that are read and never trusted: regular, of known size, inside the folder they were found in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace geom {

/// Which file a name led to, and in which state: what shows that it was replaced or written to.
struct FileStamp {
    std::uint64_t device = 0, inode = 0;
    std::int64_t bytes = 0;
    std::int64_t modified = 0;  ///< nanoseconds since 1970
    friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

/// Throws Error(input) when the open file `shown` cannot be inspected.
FileStamp stamp_of(int descriptor, const std::string& shown);

/// Throws Error(input) when the open file is not the one, or not in the state, that `expected` is of.
void check_unchanged(int descriptor, const FileStamp& expected, const std::string& shown);

/// A regular file opened for reading; move-only.
class InputFile {
public:
    /// Throws Error(input) when it is missing, unreadable, or not a regular file. Never blocks on a pipe.
    explicit InputFile(const std::filesystem::path& path);
    ~InputFile();
    InputFile(InputFile&& other) noexcept;
    InputFile(const InputFile&) = delete;
    InputFile& operator=(const InputFile&) = delete;
    InputFile& operator=(InputFile&&) = delete;

    std::int64_t bytes() const noexcept { return stamp_.bytes; }
    const FileStamp& stamp() const noexcept { return stamp_; }  ///< when it was opened

    /// Throws Error(input) when it is not as `expected` now.
    void check_unchanged(const FileStamp& expected) const { geom::check_unchanged(descriptor_, expected, shown_); }

    /// Fills `to` from `offset` on. Throws Error(input) when the file ends before, or on a failed read.
    void read(std::int64_t offset, std::span<std::byte> to) const;

private:
    std::string shown_;
    int descriptor_ = -1;
    FileStamp stamp_;
};

/// The whole of a small text file. Throws Error(input) beyond `limit` bytes.
std::string read_text_file(const std::filesystem::path& path, std::int64_t limit);

/// Throws Error(input) when `file`, all links followed, is missing or not below `allowed_root`.
void check_inside(const std::filesystem::path& file, const std::filesystem::path& allowed_root);

}  // namespace geom
