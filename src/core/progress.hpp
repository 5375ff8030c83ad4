// How far a run is: a bar with rate and time left on a terminal, a line a minute elsewhere. Spoken by rank 0 alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace geom {

/// "1.5 GiB", "312 MiB", "17 B".
std::string readable_bytes(double bytes);
/// "0:07", "12:30", "2:05:00".
std::string readable_time(double seconds);
/// "25.1 TFLOP".
std::string readable_flops(double flops);

/// What there is to say of a sweep.
struct ProgressState {
    std::string doing;  ///< what is at work: a measure, "load", "exchange"
    std::string of;     ///< what is counted: "weights", "pairs of heads"
    std::string unit;   ///< of `done` and `total`: "B" for bytes, "FLOP"
    double done = 0.0, total = 0.0, seconds = 0.0;
};

/// "heads      43% of the weights  26.9 MiB/s  0:35 left", with a bar before it where there is room: fewer than
/// `columns` characters, rate and names left out before the time left is. `columns` 0: a line of its own, without bar.
std::string progress_line(const ProgressState& state, int columns);

/// How it is told: not at all, a line a minute, or a bar.
enum class ProgressStyle : std::uint8_t { none, lines, bar };

/// What "auto", "bar", "lines" and "none" come to here: a bar on a terminal (core/terminal.hpp), else lines.
ProgressStyle progress_style(const std::string& asked);

class Progress {
public:
    /// Without `notes` there are none either.
    Progress(ProgressStyle style, bool notes);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// Starts a sweep over `total` units of something, with what is at work first.
    void begin(std::string doing, std::string of, double total, std::string unit);
    void advance(double amount);
    void end();

    /// Redraws the bar when it is due; called often, with what is at work.
    void tick(const std::string& doing);
    /// A line of its own on stderr, above the bar.
    void note(const std::string& text);

private:
    using Clock = std::chrono::steady_clock;
    void draw_if_due();
    void draw();
    void clear_bar();

    ProgressStyle style_;
    bool notes_, drawn_ = false;
    ProgressState state_;
    Clock::time_point start_, last_draw_;
};

}  // namespace geom
