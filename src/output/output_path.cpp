#include "output/output_path.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/error.hpp"
#include "core/host_name.hpp"

namespace geom {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void raise_system(const std::string& what, int reason) {
    throw Error(ExitCode::output, fmt::format("{}: {}", what, std::strerror(reason)));
}

fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

void sync(const fs::path& path, int flags) {
    const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC);
    if (descriptor < 0) raise_system(fmt::format("cannot open {}", path.string()), errno);
    int reason = ::fsync(descriptor) == 0 ? 0 : errno;
    if (::close(descriptor) != 0 && reason == 0) reason = errno;
    if (reason != 0) raise_system(fmt::format("cannot write {} to disk", path.string()), reason);
}

[[noreturn]] void refuse(const fs::path& file, const std::string& reason) {
    throw Error(ExitCode::output, fmt::format("cannot write {}: {}", file.string(), reason));
}

void check_folder(const fs::path& file) {
    std::error_code ignored;
    const auto folder = folder_of(file);
    const auto place = fs::status(folder, ignored);
    if (!fs::exists(place)) refuse(file, fmt::format("the folder {} does not exist", folder.string()));
    if (!fs::is_directory(place)) refuse(file, fmt::format("{} is not a folder", folder.string()));
    // Only making a file tells: permissions do not know of read-only mounts, and root may do everything but that.
    auto probe = temporary_name(file);
    probe += ".probe";
    const int descriptor = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0) {
        refuse(file, fmt::format("the folder {} is not writable: {}", folder.string(), std::strerror(errno)));
    }
    ::close(descriptor);
    ::unlink(probe.c_str());
}

[[noreturn]] void refuse_existing(const fs::path& file) {
    throw Error(ExitCode::output,
                fmt::format("{} exists: give --overwrite to replace it, or another name with -o", file.string()));
}

/// 0, or the system's reason: EEXIST when the name is taken.
int rename_to_free_name(const fs::path& from, const fs::path& to) {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) return errno;
    if (::link(from.c_str(), to.c_str()) == 0) return ::unlink(from.c_str()) == 0 ? 0 : errno;
    if (errno != EPERM && errno != ENOTSUP && errno != ENOSYS && errno != EMLINK) return errno;
    std::error_code ignored;  // a file system without hard links: a moment is left in which the name may be taken
    if (fs::exists(fs::symlink_status(to, ignored))) return EEXIST;
    return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

/// Who holds the lock, in words: "process 4711 on node3 (job 99)".
std::string this_process() {
    const char* job = std::getenv("SLURM_JOB_ID");
    return fmt::format("process {} on {}{}", ::getpid(), host_name(),
                       job == nullptr ? "" : fmt::format(" (job {})", job));
}

/// Where links lead, also to what is not there yet.
fs::path resolved(fs::path path) {
    std::error_code ignored;
    for (int links = 0; links < 40 && fs::is_symlink(fs::symlink_status(path, ignored)); ++links)
        path = folder_of(path) / fs::read_symlink(path, ignored);
    return fs::weakly_canonical(fs::absolute(path), ignored);
}

bool is_the_file(int descriptor, const fs::path& path) {
    struct stat open {
    }, named{};
    return ::fstat(descriptor, &open) == 0 && ::stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
           open.st_ino == named.st_ino;
}

}  // namespace

void check_output(const fs::path& file, bool overwrite) {
    std::error_code ignored;
    const auto status = fs::status(file, ignored);
    if (fs::is_directory(status)) refuse(file, "it is a folder; name a file with -o");
    if (fs::exists(status) && !fs::is_regular_file(status))
        refuse(file, "it is a device, a pipe or a socket, which a result never replaces; name a file with -o");
    if (fs::exists(fs::symlink_status(file, ignored)) && !overwrite) refuse_existing(file);
    check_folder(file);
}

void check_side_output(const fs::path& file) {
    std::error_code ignored;
    const auto status = fs::status(file, ignored);
    if (fs::is_directory(status)) refuse(file, "it is a folder");
    if (!fs::exists(status) || fs::is_regular_file(status)) check_folder(file);
}

bool same_file(const fs::path& a, const fs::path& b) {
    std::error_code ignored;
    if (fs::equivalent(a, b, ignored)) return true;
    return resolved(a) == resolved(b);
}

fs::path temporary_name(const fs::path& file) {
    auto name = file;
    name += fmt::format(".tmp.{}.{}", host_name(), ::getpid());
    return name;
}

void remove_abandoned(const fs::path& file) {
    const std::string prefix = file.filename().string() + ".tmp.";
    std::error_code failure;
    for (fs::directory_iterator at(folder_of(file), failure), end; !failure && at != end; at.increment(failure)) {
        std::error_code ignored;
        if (!at->path().filename().string().starts_with(prefix) || !fs::is_regular_file(at->symlink_status(ignored)))
            continue;
        if (::unlink(at->path().c_str()) != 0 && errno != ENOENT)
            raise_system(fmt::format("cannot delete {}", at->path().string()), errno);
    }
    if (failure)
        throw Error(ExitCode::output, fmt::format("cannot read {}: {}", folder_of(file).string(), failure.message()));
}

void sync_file(const fs::path& file) { sync(file, O_RDWR); }

void give_name(const fs::path& temporary, const fs::path& file, bool overwrite) {
    std::error_code ignored;
    const auto status = fs::status(file, ignored);
    if (fs::exists(status) && !fs::is_regular_file(status)) refuse(file, "it is not a file any more");
    const int reason =
        overwrite ? (::rename(temporary.c_str(), file.c_str()) == 0 ? 0 : errno) : rename_to_free_name(temporary, file);
    if (reason == EEXIST) refuse_existing(file);
    if (reason != 0) raise_system(fmt::format("cannot rename {} to {}", temporary.string(), file.string()), reason);
    sync(folder_of(file), O_RDONLY | O_DIRECTORY);
}

OutputLock::OutputLock(const fs::path& file) : lock_(file) {
    lock_ += ".lock";
    for (;;) {
        descriptor_ = ::open(lock_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
        if (descriptor_ < 0) raise_system(fmt::format("cannot open {}", lock_.string()), errno);
        const int reason = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
        if (reason == EWOULDBLOCK) {
            std::array<char, 256> holder{};
            const auto length = ::pread(descriptor_, holder.data(), holder.size() - 1, 0);
            ::close(descriptor_);
            throw Error(ExitCode::output,
                        fmt::format("cannot write {}: {} is writing it ({} is held); wait for it, or name another file "
                                    "with -o",
                                    file.string(), length > 0 ? holder.data() : "another process", lock_.string()));
        }
        // Without locks on this file system NOREPLACE and names with host and process are what is left.
        if (reason != 0 || is_the_file(descriptor_, lock_)) break;
        ::close(descriptor_);  // its holder has just deleted it
    }
    const std::string text = this_process();
    if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, text.data(), text.size(), 0) != std::ssize(text)) {
        const int reason = errno;
        ::unlink(lock_.c_str());
        ::close(descriptor_);
        raise_system(fmt::format("cannot write {}", lock_.string()), reason);
    }
}

OutputLock::~OutputLock() {
    ::unlink(lock_.c_str());
    ::close(descriptor_);
}

}  // namespace geom
