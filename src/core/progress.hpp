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

class Progress {
public:
    /// A silent one prints nothing.
    explicit Progress(bool silent);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// Starts a phase of `total` units; `unit` is what the rate counts ("B" for bytes, "FLOP").
    void begin(std::string phase, double total, std::string unit);
    void advance(double amount);
    void end();

    /// Redraws the bar when it is due; called often.
    void tick();
    /// A line of its own on stderr, above the bar.
    void note(const std::string& text);

    const std::string& phase() const noexcept { return phase_; }

private:
    using Clock = std::chrono::steady_clock;
    void draw();
    void clear_bar();

    bool silent_, terminal_, drawn_ = false;
    std::string phase_, unit_;
    double total_ = 0.0, done_ = 0.0;
    Clock::time_point start_, last_draw_;
};

}  // namespace geom
