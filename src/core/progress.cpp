#include "core/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

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

Progress::Progress(bool silent) : silent_(silent), terminal_(::isatty(STDERR_FILENO) == 1), last_draw_(Clock::now()) {}

Progress::~Progress() { clear_bar(); }

void Progress::begin(std::string phase, double total, std::string unit) {
    phase_ = std::move(phase);
    unit_ = std::move(unit);
    total_ = total;
    done_ = 0.0;
    start_ = Clock::now();
    if (terminal_) draw();
}

void Progress::advance(double amount) {
    done_ += amount;
    tick();
}

void Progress::end() { clear_bar(); }

void Progress::tick() {
    if (Clock::now() - last_draw_ >= (terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(60000)))
        draw();
}

void Progress::note(const std::string& text) {
    if (silent_) return;
    clear_bar();
    fmt::print(stderr, "{}\n", text);
}

void Progress::draw() {
    last_draw_ = Clock::now();
    if (silent_ || phase_.empty()) return;
    const double seconds = std::chrono::duration<double>(last_draw_ - start_).count();
    const double share = total_ > 0.0 ? std::min(1.0, done_ / total_) : 0.0;
    std::string text = fmt::format("{:<9} {:3.0f}%", phase_, 100.0 * share);
    if (done_ > 0.0 && seconds > 0.0) {
        const double rate = done_ / seconds;
        text += fmt::format("  {}/s  {} left", unit_ == "B" ? readable_bytes(rate) : readable_flops(rate),
                            readable_time((total_ - done_) / rate));
    }
    if (terminal_) {
        constexpr int width = 30;
        const int filled = static_cast<int>(share * width);
        fmt::print(stderr, "\r\033[K[{:#>{}}{:.>{}}] {}", "", filled, "", width - filled, text);
        std::fflush(stderr);
        drawn_ = true;
    } else {
        fmt::print(stderr, "geom-mpi: {}\n", text);
    }
}

void Progress::clear_bar() {
    if (drawn_) fmt::print(stderr, "\r\033[K");
    drawn_ = false;
}

}  // namespace geom
