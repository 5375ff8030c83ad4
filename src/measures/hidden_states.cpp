#include "measures/hidden_states.hpp"

#include <fmt/format.h>

#include <cmath>

#include "core/error.hpp"

namespace geom {

namespace {

// What is wrong with a file that is read is no fault of the output.
template <class F>
auto as_input(F&& f) {
    try {
        return f();
    } catch (const Error& error) {
        throw Error(ExitCode::input, error.what());
    }
}

[[noreturn]] void refuse(const std::string& file, const std::string& why) {
    throw Error(ExitCode::input, fmt::format("--hidden-states {}: {}", file, why));
}

}  // namespace

HiddenStates::HiddenStates(const std::filesystem::path& file)
    : name_(file.string()), file_(as_input([&] { return Hdf5File::open(file, Hdf5File::Access::read); })) {
    for (const char* path : {"residual/hidden_states", "hidden_states"}) {
        if (dataset_.empty() && as_input([&] { return file_.has(path); })) dataset_ = path;
    }
    if (dataset_.empty())
        refuse(name_,
               "there is no dataset hidden_states, nor residual/hidden_states (a run with --save-hidden makes it)");
    shape_ = as_input([&] { return file_.shape(dataset_); });
    const auto type = as_input([&] { return file_.type(dataset_); });
    if (type != ValueType::f32 && type != ValueType::f64) refuse(name_, dataset_ + " is neither f32 nor f64");
    if (shape_.size() != 3)
        refuse(name_, fmt::format("{} has {} axes; it should be [edges, tokens, hidden]", dataset_, shape_.size()));
}

std::vector<double> HiddenStates::edge(std::int64_t edge, std::int64_t tokens) const {
    std::vector<double> numbers(static_cast<std::size_t>(tokens * hidden()));
    const Piece piece{{edge, 0, 0}, {1, tokens, hidden()}, 0, std::ssize(numbers) * size_of(ValueType::f64)};
    as_input([&] { file_.read(dataset_, ValueType::f64, piece, reinterpret_cast<std::byte*>(numbers.data())); });
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        if (std::isfinite(numbers[i])) continue;
        throw Error(ExitCode::numerics,
                    fmt::format("--hidden-states {}: {} at edge {}, token {}, coordinate {}", name_, numbers[i], edge,
                                static_cast<std::int64_t>(i) / hidden(), static_cast<std::int64_t>(i) % hidden()));
    }
    return numbers;
}

}  // namespace geom
