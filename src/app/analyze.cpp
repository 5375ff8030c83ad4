#include "app/analyze.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "app/analyze_tables.hpp"
#include "core/error.hpp"

namespace geom {

namespace {

[[noreturn]] void cannot_write(const std::string& what, const std::string& reason) {
    throw Error(ExitCode::output, fmt::format("cannot write {}: {}", what, reason));
}

void write_file(const std::filesystem::path& file, const std::string& text) {
    errno = 0;
    std::ofstream out(file, std::ios::binary);
    out << text;
    if (!out.flush()) cannot_write(file.string(), errno != 0 ? std::strerror(errno) : "no reason given");
}

void print(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
        cannot_write("the tables to stdout", std::strerror(errno));
}

void write_folder(const TableSet& set, const AnalyzeOptions& options) {
    const std::filesystem::path folder = options.folder;
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    if (failed) cannot_write("into the folder " + folder.string(), failed.message());
    if (options.format == "csv") {
        for (const Table& table : set.tables) write_file(folder / (table.name + ".csv"), as_csv(table));
    } else if (options.format == "md") {
        write_file(folder / "tables.md", as_markdown(set));
    } else if (options.format == "json") {
        write_file(folder / "tables.json", as_json(set));
    } else {
        write_file(folder / "tables.txt", as_text(set));
    }
    print(fmt::format("{}: {} tables of {} written\n", folder.string(), set.tables.size(), options.file));
}

std::string rendered(const TableSet& set, const std::string& format) {
    if (format == "csv") return as_csv_sections(set);
    if (format == "md") return as_markdown(set);
    return format == "json" ? as_json(set) : as_text(set);
}

}  // namespace

TableSet table_set(const ResultView& view, const std::string& file) {
    const ResultReader& result = view.file();
    TableSet set{{{"file", file}}, tables_of(view)};
    for (const char* name : {"model", "revision"}) {
        if (const auto text = result.text_attribute("", name); !text.empty()) set.about.emplace_back(name, text);
    }
    const Range layers = parse_range("layers", result.text_attribute("", "layers"));
    set.about.emplace_back("layers", fmt::format("{} to {} of {}", layers.begin, layers.end - 1,
                                                 result.number_attribute("", "model_layers")));
    for (const char* name : {"heads", "group_size", "hidden"})
        set.about.emplace_back(name, static_cast<std::int64_t>(result.number_attribute("", name)));
    if (view.has("analysis/anchor"))
        set.about.emplace_back("anchor", static_cast<std::int64_t>(view.number("analysis/anchor")));
    return set;
}

void analyze(const AnalyzeOptions& options) {
    ResultView view{ResultReader(options.file)};
    if (options.head) view.take_head(*options.head);
    if (options.block) view.take_block(*options.block);
    if (options.anchor) view.take_anchor(*options.anchor);
    const TableSet set = table_set(view, options.file);
    if (options.folder.empty()) {
        print(rendered(set, options.format));
    } else {
        write_folder(set, options);
    }
}

}  // namespace geom
