#include "output/journal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iterator>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/crc32c.hpp"
#include "core/error.hpp"

namespace geom {

namespace {

static_assert(std::endian::native == std::endian::little, "the journal is read and written as it lies in memory");

constexpr std::uint64_t head_magic = 0x334c4e524a4d4547;    // "GEMJRNL3": the last letter is the format's version
constexpr std::uint64_t record_magic = 0x54494e554d4f4547;  // "GEOMUNIT"
constexpr std::size_t frame_bytes = 8 + 8 + 4;              // magic, length, their checksum
constexpr std::size_t checksum_bytes = 4;
constexpr std::uint64_t longest_identity = 16U << 20;

[[noreturn]] void raise_system(const std::string& what, int reason) {
    throw Error(ExitCode::output, fmt::format("{}: {}", what, std::strerror(reason)));
}

// ---- bytes

template <class T>
void put(std::string& bytes, T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& bytes, std::string_view text) {
    put(bytes, static_cast<std::uint64_t>(text.size()));
    bytes.append(text);
}

/// Reads what put() wrote; after the first thing that does not fit, everything is empty and whole() is false.
class Parser {
public:
    explicit Parser(std::string_view bytes) : bytes_(bytes) {}

    template <class T>
    T get() {
        T value{};
        if (const auto raw = take(sizeof value); raw.size() == sizeof value)
            std::memcpy(&value, raw.data(), sizeof value);
        return value;
    }
    std::string_view text() { return take(get<std::uint64_t>()); }
    std::vector<std::int64_t> numbers(std::size_t n) {
        const auto raw = n <= bytes_.size() ? take(n * sizeof(std::int64_t)) : take(bytes_.size() + 1);
        std::vector<std::int64_t> values(raw.size() / sizeof(std::int64_t));
        if (!raw.empty()) std::memcpy(values.data(), raw.data(), raw.size());
        return values;
    }
    bool whole() const noexcept { return whole_; }
    bool done() const noexcept { return whole_ && bytes_.empty(); }

private:
    std::string_view take(std::uint64_t n) {
        if (!whole_ || n > bytes_.size()) {
            whole_ = false;
            return {};
        }
        const auto taken = bytes_.substr(0, n);
        bytes_.remove_prefix(n);
        return taken;
    }

    std::string_view bytes_;
    bool whole_ = true;
};

/// magic | length | checksum of both | payload | checksum of the payload. The length has a checksum of its own so that
/// a damaged one is not believed.
std::string framed(std::uint64_t magic, std::string_view payload) {
    std::string bytes;
    bytes.reserve(frame_bytes + payload.size() + checksum_bytes);
    put(bytes, magic);
    put(bytes, static_cast<std::uint64_t>(payload.size()));
    put(bytes, crc32c(0, bytes.data(), bytes.size()));
    bytes.append(payload);
    put(bytes, crc32c(0, payload.data(), payload.size()));
    return bytes;
}

bool intact(std::string_view bytes, std::uint32_t checksum) {
    return crc32c(0, bytes.data(), bytes.size()) == checksum;
}

std::string serialised(const Identity& identity) {
    std::string bytes;
    put(bytes, static_cast<std::uint64_t>(identity.size()));
    for (const auto& [key, value] : identity) {
        put_text(bytes, key);
        put_text(bytes, value);
    }
    return bytes;
}

std::optional<Identity> parsed_identity(std::string_view bytes) {
    Parser parser(bytes);
    Identity identity;
    for (auto n = parser.get<std::uint64_t>(); n > 0 && parser.whole(); --n) {
        std::string key(parser.text());
        identity[std::move(key)] = parser.text();
    }
    if (!parser.done()) return std::nullopt;
    return identity;
}

std::string serialised(const UnitResult& result, const Schema& schema) {
    std::string bytes;
    std::size_t data = 0;
    for (const auto& slab : result.slabs) data += slab.data.size();
    bytes.reserve(data + 256 * (result.slabs.size() + 1));
    put_text(bytes, result.unit.measure);
    put(bytes, static_cast<std::uint8_t>(result.unit.of));
    put(bytes, result.unit.first);
    put(bytes, result.unit.second);
    put(bytes, static_cast<std::uint64_t>(result.slabs.size()));
    for (const auto& slab : result.slabs) {
        check_slab(schema, slab);
        const auto& variable = schema.variables[static_cast<std::size_t>(slab.variable)];
        put_text(bytes, variable.path());
        put(bytes, static_cast<std::uint8_t>(variable.type));
        put(bytes, static_cast<std::uint64_t>(slab.start.size()));
        for (const auto start : slab.start) put(bytes, start);
        for (const auto count : slab.count) put(bytes, count);
        put_text(bytes, {reinterpret_cast<const char*>(slab.data.data()), slab.data.size()});
    }
    put(bytes, static_cast<std::uint64_t>(result.read.size()));
    for (const RowsRead& rows : result.read) {
        put_text(bytes, rows.tensor);
        put(bytes, rows.begin);
        put(bytes, rows.end);
        put(bytes, rows.digest);
    }
    return bytes;
}

/// Nothing when the slab is not one of this schema: a variable that is gone, or has another type or shape.
std::optional<Slab> parsed_slab(Parser& parser, const Schema& schema) {
    Slab slab;
    slab.variable = schema.find(std::string(parser.text()));
    const auto type = parser.get<std::uint8_t>();
    const auto rank = parser.get<std::uint64_t>();
    slab.start = parser.numbers(rank);
    slab.count = parser.numbers(rank);
    const auto data = parser.text();
    if (!parser.whole() || slab.variable < 0) return std::nullopt;
    if (type != static_cast<std::uint8_t>(schema.variables[static_cast<std::size_t>(slab.variable)].type))
        return std::nullopt;
    const auto* bytes = reinterpret_cast<const std::byte*>(data.data());
    slab.data.assign(bytes, bytes + data.size());
    try {
        check_slab(schema, slab);
    } catch (const Error&) {
        return std::nullopt;
    }
    return slab;
}

enum class Fate : std::uint8_t { unit, foreign, damaged };

Fate parse_unit(std::string_view bytes, const Schema& schema, UnitResult& result) {
    Parser parser(bytes);
    result.unit.measure = parser.text();
    result.unit.of = static_cast<UnitOf>(parser.get<std::uint8_t>());
    result.unit.first = parser.get<std::int64_t>();
    result.unit.second = parser.get<std::int64_t>();
    bool known = true;
    for (auto n = parser.get<std::uint64_t>(); n > 0 && parser.whole(); --n) {
        auto slab = parsed_slab(parser, schema);
        known = known && slab.has_value();
        if (known) result.slabs.push_back(std::move(*slab));
    }
    for (auto n = parser.get<std::uint64_t>(); n > 0 && parser.whole(); --n) {
        RowsRead rows;
        rows.tensor = parser.text();
        rows.begin = parser.get<std::int64_t>();
        rows.end = parser.get<std::int64_t>();
        rows.digest = parser.get<std::uint64_t>();
        result.read.push_back(std::move(rows));
    }
    if (!parser.done()) return Fate::damaged;
    return known ? Fate::unit : Fate::foreign;
}

// ---- files

/// rank-RRRRR.N; nothing for the name of another file.
std::optional<std::pair<std::int64_t, std::int64_t>> rank_and_age(std::string_view name) {
    constexpr std::string_view prefix = "rank-";
    const auto point = name.find('.');
    if (!name.starts_with(prefix) || point == std::string_view::npos) return std::nullopt;
    const auto number = [](std::string_view digits) -> std::optional<std::int64_t> {
        std::int64_t value = 0;
        const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
        if (failure != std::errc() || end != digits.data() + digits.size() || value < 0) return std::nullopt;
        return value;
    };
    const auto rank = number(name.substr(prefix.size(), point - prefix.size())), age = number(name.substr(point + 1));
    if (!rank || !age) return std::nullopt;
    return std::pair{*rank, *age};
}

void sync_folder(const std::filesystem::path& folder) {
    const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) raise_system(fmt::format("cannot open the folder {}", folder.string()), errno);
    const int reason = ::fsync(descriptor) == 0 ? 0 : errno;
    ::close(descriptor);
    if (reason != 0) raise_system(fmt::format("cannot write the folder {} to disk", folder.string()), reason);
}

/// The first name of this rank that nobody has: a file is never written by two runs.
std::pair<std::filesystem::path, int> create_new(const std::filesystem::path& folder, int rank) {
    for (std::int64_t age = 0;; ++age) {
        auto file = folder / fmt::format("rank-{:05}.{}", rank, age);
        const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0) return {std::move(file), descriptor};
        if (errno != EEXIST) raise_system(fmt::format("cannot create {}", file.string()), errno);
    }
}

/// The journal's files, by rank and age.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder) {
    std::vector<std::tuple<std::int64_t, std::int64_t, std::filesystem::path>> found;
    std::error_code failure;
    std::filesystem::directory_iterator entry(folder, failure);
    if (failure == std::errc::no_such_file_or_directory) return {};
    for (; !failure && entry != std::filesystem::directory_iterator(); entry.increment(failure)) {
        const auto order = rank_and_age(entry->path().filename().string());
        if (order) found.emplace_back(order->first, order->second, entry->path());
    }
    if (failure) throw Error(ExitCode::output, fmt::format("cannot read {}: {}", folder.string(), failure.message()));
    std::sort(found.begin(), found.end());
    std::vector<std::filesystem::path> files;
    for (auto& [rank, age, file] : found) files.push_back(std::move(file));
    return files;
}

/// A journal file, read frame by frame.
class JournalFile {
public:
    explicit JournalFile(const std::filesystem::path& file)
        : file_(file), descriptor_(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {
        struct stat status {};
        if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) {
            raise_system(fmt::format("cannot read {}", file.string()), errno);
        }
        left_ = static_cast<std::uint64_t>(status.st_size);
    }
    ~JournalFile() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
    JournalFile(const JournalFile&) = delete;
    JournalFile& operator=(const JournalFile&) = delete;

    bool at_end() const noexcept { return left_ == 0; }

    /// The payload of the next frame; nothing when it is torn, damaged or longer than `longest`.
    std::optional<std::string> next(std::uint64_t magic, std::uint64_t longest) {
        const auto frame = bytes(frame_bytes);
        if (!frame) return std::nullopt;
        Parser parser(*frame);
        const auto found = parser.get<std::uint64_t>(), length = parser.get<std::uint64_t>();
        const auto checksum = parser.get<std::uint32_t>();
        if (found != magic || !intact(std::string_view(*frame).substr(0, frame_bytes - checksum_bytes), checksum)) {
            return std::nullopt;
        }
        if (length > longest || length > left_) return std::nullopt;
        auto payload = bytes(length);
        const auto stored = bytes(checksum_bytes);
        if (!payload || !stored) return std::nullopt;
        if (!intact(*payload, Parser(*stored).get<std::uint32_t>())) return std::nullopt;
        return payload;
    }

private:
    std::optional<std::string> bytes(std::uint64_t n) {
        if (n > left_) return std::nullopt;
        std::string bytes(n, '\0');
        for (std::uint64_t have = 0; have < n;) {
            const auto got = ::read(descriptor_, bytes.data() + have, n - have);
            if (got < 0 && errno != EINTR) raise_system(fmt::format("cannot read {}", file_.string()), errno);
            if (got == 0) return std::nullopt;  // shorter than it was a moment ago
            if (got > 0) have += static_cast<std::uint64_t>(got);
        }
        left_ -= n;
        return bytes;
    }

    std::filesystem::path file_;
    int descriptor_;
    std::uint64_t left_ = 0;
};

std::optional<Identity> identity_of(JournalFile& file) {
    const auto bytes = file.next(head_magic, longest_identity);
    return bytes ? parsed_identity(*bytes) : std::nullopt;
}

/// The files that can be read, after all of them were compared with the identity that is wanted.
std::vector<std::filesystem::path> readable_files(const std::filesystem::path& folder, const Identity& identity,
                                                  JournalContents& contents) {
    std::vector<std::filesystem::path> readable;
    for (const auto& path : files_of(folder)) {
        std::error_code ignored;
        if (!std::filesystem::is_regular_file(std::filesystem::symlink_status(path, ignored))) {
            contents.unreadable.push_back(fmt::format("{}: it is no file", path.string()));
            continue;
        }
        JournalFile file(path);
        const auto recorded = identity_of(file);
        if (!recorded) {
            contents.unreadable.push_back(
                fmt::format("{}: its head is torn or damaged, or of another version", path.string()));
            continue;
        }
        if (contents.differences.empty()) contents.differences = differences_between(*recorded, identity);
        readable.push_back(path);
    }
    return readable;
}

}  // namespace

std::vector<IdentityDifference> differences_between(const Identity& recorded, const Identity& wanted) {
    std::vector<IdentityDifference> differences;
    for (const auto& [key, value] : recorded) {
        const auto other = wanted.find(key);
        if (other == wanted.end() || other->second != value) {
            differences.push_back({key, value, other == wanted.end() ? "" : other->second});
        }
    }
    for (const auto& [key, value] : wanted) {
        if (!recorded.contains(key)) differences.push_back({key, "", value});
    }
    return differences;
}

std::string text_of(const std::vector<IdentityDifference>& differences) {
    std::string text;
    for (const auto& [key, recorded, wanted] : differences)
        text += fmt::format("{}{} was '{}' and is '{}'", text.empty() ? "" : ", ", key, recorded, wanted);
    return text;
}

std::filesystem::path journal_folder(const std::filesystem::path& file) {
    auto folder = file;
    folder += ".journal";
    return folder;
}

JournalWriter::JournalWriter(const std::filesystem::path& folder, const Identity& identity, int rank) {
    if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST) {
        raise_system(fmt::format("cannot create the folder {}", folder.string()), errno);
    }
    std::tie(file_, descriptor_) = create_new(folder, rank);
    try {
        write_record(framed(head_magic, serialised(identity)));
        sync_folder(folder);
        sync_folder(folder.parent_path());
    } catch (const Error&) {
        ::close(descriptor_);
        ::unlink(file_.c_str());
        throw;
    }
}

JournalWriter::~JournalWriter() { ::close(descriptor_); }

void JournalWriter::append(const UnitResult& result, const Schema& schema) {
    write_record(framed(record_magic, serialised(result, schema)));
}

void JournalWriter::write_record(const std::string& record) {
    int reason = 0;
    for (std::size_t done = 0; done < record.size() && reason == 0;) {  // one write, unless the system splits it
        const auto wrote = ::pwrite(descriptor_, record.data() + done, record.size() - done,
                                    static_cast<off_t>(end_ + static_cast<std::int64_t>(done)));
        if (wrote < 0 && errno != EINTR) reason = errno;
        if (wrote > 0) done += static_cast<std::size_t>(wrote);
    }
    if (reason == 0 && ::fdatasync(descriptor_) != 0) reason = errno;
    if (reason == 0) {
        end_ += std::ssize(record);
        return;
    }
    // A reader would stop at the torn record; taken back, later ones stay within reach.
    const bool taken_back = ::ftruncate(descriptor_, static_cast<off_t>(end_)) == 0;
    raise_system(fmt::format("cannot append {} bytes to the journal {}{}", record.size(), file_.string(),
                             taken_back ? "" : ", nor take back what was written of them"),
                 reason);
}

JournalContents read_journal(const std::filesystem::path& folder, const Identity& identity, const Schema& schema,
                             const std::function<void(UnitResult&&)>& take) {
    JournalContents contents;
    const auto files = readable_files(folder, identity, contents);
    if (!contents.differences.empty()) return contents;
    std::set<Unit> seen;
    for (const auto& path : files) {
        JournalFile file(path);
        if (!identity_of(file)) continue;
        ++contents.files;
        while (!file.at_end()) {
            const auto bytes = file.next(record_magic, UINT64_MAX);
            UnitResult result;
            const Fate fate = bytes ? parse_unit(*bytes, schema, result) : Fate::damaged;
            if (fate == Fate::damaged) {
                ++contents.torn_files;
                break;
            }
            if (fate == Fate::foreign) {
                contents.foreign.insert(std::move(result.unit));
            } else if (!seen.insert(result.unit).second) {
                ++contents.repeated;
            } else {
                ++contents.units;
                take(std::move(result));
            }
        }
    }
    return contents;
}

void remove_journal(const std::filesystem::path& folder) {
    for (const auto& file : files_of(folder)) {
        if (::unlink(file.c_str()) != 0 && errno != ENOENT)
            raise_system(fmt::format("cannot delete {}", file.string()), errno);
    }
    if (::rmdir(folder.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST) {
        raise_system(fmt::format("cannot delete the folder {}", folder.string()), errno);
    }
}

}  // namespace geom
