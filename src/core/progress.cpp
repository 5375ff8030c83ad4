#include "core/progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/terminal.hpp"

namespace geom {

namespace {

template <std::size_t N>
std::string scaled(double value, double step, const std::array<const char*, N>& units) {
    std::size_t at = 0;
    while (value >= step && at + 1 < N) {
        value /= step;
        ++at;
    }
    return fmt::format("{:.{}f} {}", value, at == 0 || value >= 100.0 ? 0 : 1, units[at]);
}

}  // namespace

std::string readable_bytes(double bytes) {
    return scaled(bytes, 1024.0, std::array{"B", "KiB", "MiB", "GiB", "TiB", "PiB"});
}

std::string readable_flops(double flops) {
    return scaled(flops, 1000.0, std::array{"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"});
}

std::string readable_time(double seconds) {
    const auto s = static_cast<std::int64_t>(std::llround(seconds));
    if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string progress_line(const ProgressState& state, int columns) {
    const double share = state.total > 0.0 ? std::min(1.0, state.done / state.total) : 0.0;
    const std::string head = fmt::format("{:<9} {:3.0f}%", state.doing, 100.0 * share);
    std::string rate, left;
    if (state.done > 0.0 && state.seconds > 0.0) {
        const double speed = state.done / state.seconds;
        rate = fmt::format("  {}/s", state.unit == "B" ? readable_bytes(speed) : readable_flops(speed));
        left = fmt::format("  {} left", readable_time((state.total - state.done) / speed));
    }
    const std::string whole = fmt::format("{} of the {}{}{}", head, state.of, rate, left);
    if (columns == 0) return whole;
    const auto room = static_cast<std::size_t>(columns - 1);
    const std::string text = whole.size() <= room ? whole : (head + left).substr(0, room);
    constexpr std::size_t widest = 30, narrowest = 8, frame = 3;
    if (text.size() + frame + narrowest > room) return text;
    const std::size_t width = std::min(widest, room - text.size() - frame);
    const auto filled = static_cast<std::size_t>(share * static_cast<double>(width));
    return fmt::format("[{:#>{}}{:.>{}}] {}", "", filled, "", width - filled, text);
}

ProgressStyle progress_style(const std::string& asked) {
    if (asked == "none") return ProgressStyle::none;
    if (asked == "lines") return ProgressStyle::lines;
    return asked == "bar" || terminal_columns() > 0 ? ProgressStyle::bar : ProgressStyle::lines;
}

Progress::Progress(ProgressStyle style, bool notes) : style_(style), notes_(notes), last_draw_(Clock::now()) {}

Progress::~Progress() { clear_bar(); }

void Progress::begin(std::string doing, std::string of, double total, std::string unit) {
    state_ = {std::move(doing), std::move(of), std::move(unit), 0.0, total, 0.0};
    start_ = Clock::now();
    if (style_ == ProgressStyle::bar) draw();
}

void Progress::advance(double amount) {
    state_.done += amount;
    draw_if_due();
}

void Progress::end() {
    clear_bar();
    state_.of.clear();
}

void Progress::tick(const std::string& doing) {
    state_.doing = doing;
    draw_if_due();
}

void Progress::draw_if_due() {
    const auto between =
        style_ == ProgressStyle::bar ? std::chrono::milliseconds(200) : std::chrono::milliseconds(60000);
    if (Clock::now() - last_draw_ >= between) draw();
}

void Progress::note(const std::string& text) {
    if (!notes_) return;
    clear_bar();
    fmt::print(stderr, "{}\n", text);
    std::fflush(stderr);
}

void Progress::draw() {
    last_draw_ = Clock::now();
    if (style_ == ProgressStyle::none || state_.of.empty()) return;
    state_.seconds = std::chrono::duration<double>(last_draw_ - start_).count();
    if (style_ == ProgressStyle::bar) {
        constexpr int without_terminal = 80;
        const int columns = terminal_columns();
        fmt::print(stderr, "\r\033[K{}", progress_line(state_, columns > 0 ? columns : without_terminal));
        drawn_ = true;
    } else {
        fmt::print(stderr, "geom-mpi: {}\n", progress_line(state_, 0));
    }
    std::fflush(stderr);
}

void Progress::clear_bar() {
    if (!drawn_) return;
    fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
    drawn_ = false;
}

}  // namespace geom
