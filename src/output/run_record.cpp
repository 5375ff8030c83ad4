#include "output/run_record.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <string_view>

namespace geom {

namespace {

std::string utc_now() {
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[32] = {};
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

// What the digest of this run's reading does not cover.
std::string not_in_digest(const RunRecord& run) {
    if (run.copied_measures.empty()) return {};
    return fmt::format(
        "{} came from an earlier result of the same fingerprint and options, and the digest is of what the others read",
        fmt::join(run.copied_measures, ", "));
}

}  // namespace

Schema run_schema(const std::vector<std::string>& phases, bool device) {
    Schema schema;
    schema.scales.push_back({"run", "phase", std::ssize(phases), phases, "phase of the run", {}});
    for (const char* which : {"min", "mean", "max"}) {
        schema.variables.push_back({"run",
                                    fmt::format("seconds_{}", which),
                                    {"phase"},
                                    ValueType::f64,
                                    fmt::format("{} over ranks of a phase's time", which),
                                    "s",
                                    ""});
    }
    const auto number = [&schema](const char* name, const char* long_name, const char* units) {
        schema.variables.push_back({"run", name, {}, ValueType::f64, long_name, units, ""});
    };
    number("bytes_read", "bytes of weights read, all ranks", "byte");
    number("passes", "how often head blocks were read", "1");
    number("flops", "flops of products of head blocks, all ranks", "1");
    number("peak_memory", "largest resident memory of a rank", "byte");
    number("planned_memory", "the same as planned before the run", "byte");
    if (device) {
        number("peak_device_memory", "largest GPU memory of a rank", "byte");
        number("planned_device_memory", "the same as planned before the run", "byte");
    }
    return schema;
}

std::string identity_text(const Identity& identity) {
    std::string text;
    for (const auto& [key, value] : identity) text += fmt::format("{}{}={}", text.empty() ? "" : "; ", key, value);
    return text;
}

Identity identity_of_text(const std::string& text) {
    constexpr std::string_view between = "; ";
    Identity identity;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find(between, begin), text.size());
        const std::size_t equals = text.find('=', begin);
        if (equals < end) identity[text.substr(begin, equals - begin)] = text.substr(equals + 1, end - equals - 1);
        begin = end + between.size();
    }
    return identity;
}

std::vector<Attribute> root_attributes(const RunRecord& run) {
    std::vector<Attribute> attributes = {
        {"", "title", fmt::format("Geometry of the weights of {}", run.model)},
        {"", "geom_mpi_version", run.program_version},
        {"", "program_commit", run.program_commit},
        {"", "created", utc_now()},
        {"", "command", run.command_line},
        {"", "model", run.model},
        {"", "revision", run.revision},
        {"", "commit", run.commit},
        {"", "config", run.config},
        {"", "weights_digest", fmt::format("{:016x}", run.digest)},
        {"", "fingerprint", run.fingerprint},
        {"", "dtype", run.dtype},
        {"", "tensors", run.tensors},
        {"", "model_layers", run.model_layers},
        {"", "layers", fmt::format("{}:{}", run.layers.begin, run.layers.end)},
        {"", "block", fmt::format("{}:{}", run.block.begin, run.block.end)},
        {"", "heads", run.heads},
        {"", "hidden", run.hidden},
        {"", "group_size", run.group_size},
        {"", "anchor", run.anchor},
        {"", "measures", fmt::format("{}", fmt::join(run.measures, ","))},
        {"", "ranks", run.ranks},
        {"", "backend", run.backend},
        {"", "product_path", run.path},
        {"", "exchange_path", run.exchange},
        {"", "devices", run.devices},
        {"", "hostnames", run.hosts},
        {"", "seed", static_cast<std::int64_t>(run.seed)},
        {"", "versions", run.versions},
        {"", "identity", identity_text(run.identity)},
    };
    if (const std::string text = not_in_digest(run); !text.empty())
        attributes.push_back({"", "weights_digest_missing", text});
    if (!run.left_out.empty()) attributes.push_back({"", "left_out", run.left_out});
    return attributes;
}

std::vector<Slab> run_slabs(const RunRecord& run, const Schema& schema) {
    std::vector<double> min, mean, max;
    for (const PhaseTime& time : run.phases) {
        min.push_back(time.min);
        mean.push_back(time.mean);
        max.push_back(time.max);
    }
    std::vector<Slab> slabs = {whole_slab(schema, "run/seconds_min", min), whole_slab(schema, "run/seconds_mean", mean),
                               whole_slab(schema, "run/seconds_max", max)};
    const auto number = [&](const char* path, std::int64_t value) {
        slabs.push_back(whole_slab(schema, path, std::vector<double>{static_cast<double>(value)}));
    };
    number("run/bytes_read", run.bytes_read);
    number("run/passes", run.passes);
    number("run/flops", run.flops);
    number("run/peak_memory", run.peak_bytes);
    number("run/planned_memory", run.planned_bytes);
    if (run.planned_device_bytes > 0) {
        number("run/peak_device_memory", run.peak_device_bytes);
        number("run/planned_device_memory", run.planned_device_bytes);
    }
    return slabs;
}

}  // namespace geom
