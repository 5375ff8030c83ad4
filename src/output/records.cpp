#include "output/records.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/error.hpp"

namespace geom {

namespace {

std::int64_t product(const std::vector<std::int64_t>& counts) noexcept {
    std::int64_t n = 1;
    for (const auto count : counts) n *= count;
    return n;
}

/// "a/b/c" → "a/b" → "a" → "".
std::string enclosing(const std::string& group) {
    const auto slash = group.rfind('/');
    return slash == std::string::npos ? std::string() : group.substr(0, slash);
}

struct Cutter {
    std::int64_t element_bytes;
    std::int64_t limit;
    std::vector<Piece> pieces;

    /// Axes before `axis` have count 1 already, so any run along `axis` is contiguous in memory.
    void cut(const Piece& box, std::size_t axis) {
        if (box.bytes <= limit || axis == box.count.size()) {
            pieces.push_back(box);
            return;
        }
        const std::int64_t rows = box.count[axis], row_bytes = box.bytes / rows;
        const std::int64_t step = std::max<std::int64_t>(1, limit / row_bytes);
        for (std::int64_t row = 0; row < rows; row += step) {
            Piece part = box;
            part.start[axis] += row;
            part.count[axis] = std::min(step, rows - row);
            part.offset += row * row_bytes;
            part.bytes = part.count[axis] * row_bytes;
            cut(part, axis + 1);
        }
    }
};

}  // namespace

std::int64_t size_of(ValueType type) noexcept { return type == ValueType::f64 ? 8 : 4; }

std::int64_t Schema::find(const std::string& path) const noexcept {
    const auto found = std::find_if(variables.begin(), variables.end(), [&](const Variable& variable) {
        if (variable.group.empty()) return path == variable.name;
        return path.size() == variable.group.size() + 1 + variable.name.size() && path.starts_with(variable.group) &&
               path[variable.group.size()] == '/' && path.ends_with(variable.name);
    });
    return found == variables.end() ? -1 : found - variables.begin();
}

std::int64_t Schema::index_of(const std::string& path) const {
    const std::int64_t index = find(path);
    if (index < 0) throw Error(ExitCode::internal, fmt::format("the schema has no variable {}", path));
    return index;
}

const Scale& Schema::scale_of(const Variable& variable, const std::string& dim) const {
    for (std::string group = variable.group;; group = enclosing(group)) {
        const auto found = std::find_if(scales.begin(), scales.end(),
                                        [&](const Scale& scale) { return scale.name == dim && scale.group == group; });
        if (found != scales.end()) return *found;
        if (group.empty()) {
            throw Error(ExitCode::internal, fmt::format("the schema has no scale {} for {}", dim, variable.path()));
        }
    }
}

std::vector<std::int64_t> Schema::shape_of(const Variable& variable) const {
    std::vector<std::int64_t> shape;
    shape.reserve(variable.dims.size());
    for (const auto& dim : variable.dims) shape.push_back(scale_of(variable, dim).length);
    return shape;
}

void Schema::add(Schema other) {
    for (Scale& scale : other.scales) {
        const auto same = std::find_if(scales.begin(), scales.end(),
                                       [&](const Scale& there) { return there.path() == scale.path(); });
        if (same == scales.end()) {
            scales.push_back(std::move(scale));
        } else if (!(*same == scale)) {
            throw Error(ExitCode::internal, fmt::format("two different scales {} were declared", scale.path()));
        }
    }
    for (Variable& variable : other.variables) {
        if (find(variable.path()) >= 0)
            throw Error(ExitCode::internal, fmt::format("the variable {} was declared twice", variable.path()));
        variables.push_back(std::move(variable));
    }
}

std::int64_t Schema::bytes_of(const Variable& variable) const {
    return product(shape_of(variable)) * size_of(variable.type);
}

std::int64_t Slab::elements() const noexcept { return product(count); }

std::vector<Piece> pieces_of(const Slab& slab, std::int64_t element_bytes, std::int64_t limit) {
    if (slab.elements() == 0) return {};
    Cutter cutter{element_bytes, limit, {}};
    cutter.cut({slab.start, slab.count, 0, slab.elements() * element_bytes}, 0);
    return std::move(cutter.pieces);
}

std::string text_of(const std::vector<std::int64_t>& numbers) {
    std::string text;
    for (const auto number : numbers) text += fmt::format("{}{}", text.empty() ? "" : ", ", number);
    return "[" + text + "]";
}

void check_slab(const Schema& schema, const Slab& slab) {
    if (slab.variable < 0 || slab.variable >= std::ssize(schema.variables)) {
        throw Error(ExitCode::internal, fmt::format("a slab of variable number {}, of {} there are", slab.variable,
                                                    schema.variables.size()));
    }
    const Variable& variable = schema.variables[static_cast<std::size_t>(slab.variable)];
    const auto shape = schema.shape_of(variable);
    bool fits = slab.start.size() == shape.size() && slab.count.size() == shape.size();
    for (std::size_t axis = 0; fits && axis < shape.size(); ++axis) {
        fits = slab.start[axis] >= 0 && slab.count[axis] >= 0 && slab.start[axis] <= shape[axis] &&
               slab.count[axis] <= shape[axis] - slab.start[axis];
    }
    if (!fits || std::ssize(slab.data) != slab.elements() * size_of(variable.type)) {
        throw Error(ExitCode::internal,
                    fmt::format("a slab of {} bytes at {}, count {}, does not fit {} of shape {}, {} bytes an element",
                                slab.data.size(), text_of(slab.start), text_of(slab.count), variable.path(),
                                text_of(shape), size_of(variable.type)));
    }
}

Slab make_slab(const Schema& schema, const std::string& path, std::vector<std::int64_t> start,
               std::vector<std::int64_t> count, std::span<const std::byte> numbers) {
    Slab slab{schema.index_of(path), std::move(start), std::move(count), {numbers.begin(), numbers.end()}};
    check_slab(schema, slab);
    return slab;
}

}  // namespace geom
