#include "app/page.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/findings.hpp"
#include "app/options.hpp"
#include "core/error.hpp"
#include "core/progress.hpp"
#include "derivations/cosines.hpp"
#include "output/result_file.hpp"

namespace geom {

namespace {

using nlohmann::ordered_json;

std::vector<std::string> unique(std::vector<std::string> values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values;
}

std::string plural(double n, const char* one, const char* many) {
    return fmt::format("{:.0f} {}", n, n == 1 ? one : many);
}

// The numbers of a result that the page and the object show.
class Summary {
public:
    explicit Summary(const std::filesystem::path& file) : name_(file.string()), file_(file) {}

    std::string page() const {
        std::string text = "\n" + model_lines() + findings_text(file_) + left_out_lines() + phase_lines();
        text += fmt::format("result    {}\n", name_);
        return text;
    }

    ordered_json object() const {
        ordered_json object;
        for (const auto& [name, value] : file_.attributes(""))
            object[name] = std::visit([](const auto& v) { return ordered_json(v); }, value);
        const Range layers = parse_range("layers", file_.text_attribute("", "layers"));
        object["layers"] = {layers.begin, layers.end};
        object["file"] = name_;
        const auto names = file_.labels("run/phase");
        const auto min = file_.read("run/seconds_min"), mean = file_.read("run/seconds_mean"),
                   max = file_.read("run/seconds_max");
        for (std::size_t p = 0; p < names.size(); ++p)
            object["phases"][names[p]] = {{"min", min[p]}, {"mean", mean[p]}, {"max", max[p]}};
        ordered_json versions;
        for (const std::string& version : file_.texts_attribute("", "versions")) {
            const auto space = version.find(' ');
            versions[version.substr(0, space)] = version.substr(space + 1);
        }
        object["versions"] = versions;
        for (const char* name : {"bytes_read", "passes", "flops", "peak_memory", "planned_memory", "peak_device_memory",
                                 "planned_device_memory"}) {
            if (file_.has(std::string("run/") + name)) object[name] = static_cast<std::int64_t>(run_number(name));
        }
        const ordered_json findings = findings_object(file_);
        if (!findings.empty()) object["summary"] = findings;
        return object;
    }

private:
    double run_number(const std::string& name) const { return file_.read("run/" + name).front(); }

    std::string model_lines() const {
        const Range layers = parse_range("layers", file_.text_attribute("", "layers"));
        const auto all = static_cast<std::int64_t>(file_.number_attribute("", "model_layers"));
        const std::string some =
            layers.size() == all ? "" : fmt::format(" ({} to {} of them looked at)", layers.begin, layers.end - 1);
        const double ranks = file_.number_attribute("", "ranks");
        return fmt::format("model     {}, {} layers{}, {:.0f} heads, hidden {:.0f}\n",
                           file_.text_attribute("", "model"), all, some, file_.number_attribute("", "heads"),
                           file_.number_attribute("", "hidden")) +
               fmt::format("run       {} on {}: {}; {} ({})\n", plural(ranks, "rank", "ranks"),
                           fmt::join(unique(file_.texts_attribute("", "hostnames")), ", "),
                           fmt::join(unique(file_.texts_attribute("", "devices")), "; "),
                           file_.text_attribute("", "backend"), file_.text_attribute("", "product_path"));
    }

    std::string left_out_lines() const {
        std::string text;
        if (!file_.has_attribute("", "left_out")) return text;
        for (const std::string& one : file_.texts_attribute("", "left_out")) text += fmt::format("left out  {}\n", one);
        return text;
    }

    std::string phase_lines() const {
        std::string text = "time     ";
        const auto names = file_.labels("run/phase");
        const auto seconds = file_.read("run/seconds_max");
        for (std::size_t p = 0; p < names.size(); ++p)
            text += fmt::format(" {} {:.2f} s{}", names[p], seconds[p], p + 1 == names.size() ? "" : ",");
        text += fmt::format(" (slowest rank)\n          {} read in {}; peak memory {} a rank ({} planned)\n",
                            readable_bytes(run_number("bytes_read")), plural(run_number("passes"), "pass", "passes"),
                            readable_bytes(run_number("peak_memory")), readable_bytes(run_number("planned_memory")));
        if (file_.has("run/peak_device_memory")) {
            text += fmt::format("          peak GPU memory {} a rank ({} planned)\n",
                                readable_bytes(run_number("peak_device_memory")),
                                readable_bytes(run_number("planned_device_memory")));
        }
        return text;
    }

    std::string name_;
    ResultReader file_;
};

void print_out(const std::string& text, const char* what) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
    const int reason = errno;
    throw Error(ExitCode::output,
                fmt::format("{} cannot be written to the standard output: {}", what, std::strerror(reason)));
}

}  // namespace

void print_summary(const std::filesystem::path& file, const std::string& json) {
    std::string page, object;
    try {
        const Summary summary(file);
        page = summary.page();
        if (!json.empty()) object = summary.object().dump(2) + "\n";
    } catch (const Error& error) {  // the result is this run's own
        throw Error(ExitCode::output, error.what());
    }
    print_both(page, object, json);
}

void print_both(const std::string& text, const std::string& object, const std::string& json) {
    if (json == "-") {
        std::fwrite(text.data(), 1, text.size(), stderr);
        print_out(object, "the JSON object");
        return;
    }
    print_out(text, "the summary");
    if (json.empty()) return;
    std::ofstream out(json);
    out << object;
    if (!out.flush()) throw Error(ExitCode::output, fmt::format("{}: the JSON object cannot be written", json));
}

}  // namespace geom
