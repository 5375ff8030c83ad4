#include "app/residual_input.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/crc32c.hpp"
#include "core/error.hpp"
#include "measures/hidden_states.hpp"
#include "model/calibration.hpp"

namespace geom {

namespace {

// --- phases ----------------------------------------------------------------------------------------------------------

[[noreturn]] void refuse_phases(const std::string& file, const std::string& why) {
    throw Error(ExitCode::input, fmt::format("--phases {}: {}", file, why));
}

/// "NAME A:B"; empty lines and what follows # do not count.
void add_phase(const std::string& line, const std::string& file, ResidualSettings& settings) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name, range, more;
    if (!(words >> name)) return;
    if (!(words >> range) || (words >> more))
        refuse_phases(file, fmt::format("'{}' is no phase; write NAME A:B for layers A to B-1", line));
    const auto known = std::find(settings.phases.begin(), settings.phases.end(), name);
    if (known != settings.phases.end()) refuse_phases(file, fmt::format("phase {} is there twice", name));
    const auto phase = static_cast<std::int32_t>(settings.phases.size());
    settings.phases.push_back(name);
    const Range layers = [&] {
        try {
            return parse_range("--phases", range);
        } catch (const Error& error) {
            throw Error(ExitCode::input, fmt::format("{} (phase {} of {})", error.what(), name, file));
        }
    }();
    for (std::int64_t layer = layers.begin; layer < layers.end; ++layer) {
        if (layer >= std::ssize(settings.phase_of))
            refuse_phases(file, fmt::format("phase {} has layer {}, and the model has {}", name, layer,
                                            settings.phase_of.size()));
        std::int32_t& of_layer = settings.phase_of[static_cast<std::size_t>(layer)];
        if (of_layer >= 0)
            refuse_phases(file, fmt::format("layer {} is in phase {} and in {}", layer,
                                            settings.phases[static_cast<std::size_t>(of_layer)], name));
        of_layer = phase;
    }
}

void read_phases(const std::string& file, std::int64_t model_layers, ResidualSettings& settings) {
    settings.phase_of.assign(static_cast<std::size_t>(model_layers), -1);
    std::ifstream in(file);
    if (!in) refuse_phases(file, "cannot be read");
    for (std::string line; std::getline(in, line);) add_phase(line, file, settings);
    const auto without = std::find(settings.phase_of.begin(), settings.phase_of.end(), -1);
    if (without != settings.phase_of.end())
        refuse_phases(file, fmt::format("layer {} is in no phase", without - settings.phase_of.begin()));
}

// --- streams ---------------------------------------------------------------------------------------------------------

void take_hidden_states(const RunOptions& options, const ModelShape& shape, ResidualInput& input) {
    const std::string& file = options.hidden_states;
    const HiddenStates states{file};
    if (states.edges() != shape.model_layers + 1 || states.hidden() != shape.hidden || states.tokens() == 0) {
        throw Error(
            ExitCode::input,
            fmt::format("--hidden-states {}: it is [{}, {}, {}], and this model has {} layers of {} coordinates: "
                        "[{}, tokens, {}] is wanted",
                        file, states.edges(), states.tokens(), states.hidden(), shape.model_layers, shape.hidden,
                        shape.model_layers + 1, shape.hidden));
    }
    input.settings.hidden_states = file;
    input.settings.tokens = std::min(states.tokens(), options.max_tokens);
    if (input.settings.tokens < states.tokens())
        input.note = fmt::format("{}: {} tokens; the first {} are used (--max-tokens)", file, states.tokens(),
                                 options.max_tokens);
    input.identity = fmt::format(
        "streams of {} bytes, {}", std::filesystem::file_size(file),
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::filesystem::last_write_time(file).time_since_epoch())
            .count());
}

// --- text ------------------------------------------------------------------------------------------------------------

void refuse_forward(const ModelShape& shape, std::int64_t tokens) {
    std::string why = shape.forward.refusal(tokens);
    if (why.empty() && shape.at(0).number != 0) why = "a forward pass begins at layer 0, and --layers leaves it out";
    if (!why.empty())
        throw Error(ExitCode::usage,
                    fmt::format("residual: {}; --hidden-states FILE does without a forward pass", why));
}

void take_text(const RunOptions& options, const Checkpoint& checkpoint, const ModelShape& shape, ResidualInput& input) {
    refuse_forward(shape, 1);
    CalibrationTokens text = read_calibration(checkpoint, {options.calibration, options.token_ids, options.max_tokens});
    refuse_forward(shape, std::ssize(text.ids));
    if (text.truncated)
        input.note =
            fmt::format("{}: longer than --max-tokens; the first {} tokens are used", text.source, options.max_tokens);
    input.settings.token_ids = std::move(text.ids);
    input.settings.tokens = std::ssize(input.settings.token_ids);
    input.settings.exact_f32 = options.forward_dtype == "f32";
    input.identity = fmt::format("{} tokens {:08x}{}", input.settings.tokens,
                                 crc32c(0, input.settings.token_ids.data(), 4 * input.settings.token_ids.size()),
                                 input.settings.exact_f32 ? ", f32" : "");
}

}  // namespace

ResidualInput residual_input(const RunOptions& options, const Checkpoint& checkpoint, const ModelShape& shape) {
    ResidualInput input;
    ResidualSettings& settings = input.settings;
    settings.keep_first = options.keep_first;
    settings.save_hidden = options.save_hidden;
    settings.legacy = options.legacy;
    if (options.phases.empty()) {
        use_default_phases(settings, shape.model_layers);
    } else {
        read_phases(options.phases, shape.model_layers, settings);
    }
    if (options.hidden_states.empty()) {
        take_text(options, checkpoint, shape, input);
    } else {
        take_hidden_states(options, shape, input);
    }
    if (settings.counted() < 1) {
        throw Error(ExitCode::input,
                    "residual: a text of one token, and the first one is left out of all statistics; "
                    "give a longer one, or --keep-first");
    }
    input.identity +=
        fmt::format("{}{}, phases {} {}", settings.keep_first ? ", first" : "", settings.save_hidden ? ", saved" : "",
                    fmt::join(settings.phases, " "), fmt::join(settings.phase_of, " "));
    return input;
}

bool names_residual_input(const RunOptions& options) noexcept {
    return !options.calibration.empty() || !options.token_ids.empty() || !options.hidden_states.empty();
}

}  // namespace geom
