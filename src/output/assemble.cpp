#include "output/assemble.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "core/error.hpp"
#include "core/range.hpp"

namespace geom {

namespace {

using Shape = std::vector<std::int64_t>;

std::int64_t product(Shape::const_iterator begin, Shape::const_iterator end) {
    return std::accumulate(begin, end, std::int64_t{1}, std::multiplies<>());
}

// The rows of a variable that `rank` writes; a scalar counts as one row.
Range rows_of(const Shape& shape, const Communicator& communicator, int rank) {
    return share(shape.empty() ? 1 : shape[0], communicator.size(), rank);
}

void append(std::string& bytes, const void* data, std::int64_t n) {
    bytes.append(static_cast<const char*>(data), static_cast<std::size_t>(n));
}

// One slab's rows as a message: variable, dimensions, start, count, numbers.
void append_rows(std::string& message, const Slab& slab, Range rows, std::int64_t element) {
    const auto dims = static_cast<std::int64_t>(slab.count.size());
    Shape start = slab.start, count = slab.count;
    std::int64_t skipped = 0, n = element;
    if (dims > 0) {
        const std::int64_t row = product(count.begin() + 1, count.end()) * element;
        skipped = (rows.begin - start[0]) * row;
        n = rows.size() * row;
        start[0] = rows.begin;
        count[0] = rows.size();
    }
    append(message, &slab.variable, sizeof slab.variable);
    append(message, &dims, sizeof dims);
    append(message, start.data(), dims * 8);
    append(message, count.data(), dims * 8);
    append(message, slab.data.data() + skipped, n);
}

// Takes what append_rows() wrote.
class MessageReader {
public:
    explicit MessageReader(const std::string& message) : at_(message.data()), end_(at_ + message.size()) {}
    bool done() const { return at_ == end_; }
    const char* take(std::int64_t n) {
        const char* taken = at_;
        at_ += n;
        return taken;
    }
    std::int64_t number() {
        std::int64_t value = 0;
        std::memcpy(&value, take(8), 8);
        return value;
    }
    Shape numbers(std::int64_t n) {
        Shape values;
        for (std::int64_t i = 0; i < n; ++i) values.push_back(number());
        return values;
    }

private:
    const char* at_;
    const char* end_;
};

// A rank's rows of one variable, filled piece by piece.
class Target {
public:
    Target(const Schema& schema, std::int64_t which, const Communicator& communicator)
        : variable_(schema.variables[static_cast<std::size_t>(which)]) {
        slab = own_rows(schema, which, communicator);
        const auto elements = std::ssize(slab.data) / size_of(variable_.type);
        filled_.resize(static_cast<std::size_t>(elements));
    }

    // Copies a box of `count` elements at `start`; both in the variable's own coordinates.
    void fill(const Shape& start, const Shape& count, const char* data) {
        const std::int64_t total = product(count.begin(), count.end()), element = size_of(variable_.type);
        const auto dims = count.size();
        const std::int64_t run = dims == 0 ? 1 : count[dims - 1];
        Shape index(dims, 0);
        for (std::int64_t done = 0; done < total; done += run) {
            std::int64_t offset = 0;
            for (std::size_t d = 0; d < dims; ++d)
                offset = offset * slab.count[d] + start[d] + index[d] - slab.start[d];
            mark(offset, run);
            std::memcpy(slab.data.data() + offset * element, data + done * element,
                        static_cast<std::size_t>(run * element));
            for (std::size_t d = dims; d-- > 1;) {  // the next run: the axis before the last moves first
                if (++index[d - 1] < count[d - 1]) break;
                index[d - 1] = 0;
            }
        }
    }

    void check_complete() const {
        const auto done = std::count(filled_.begin(), filled_.end(), true);
        if (done != std::ssize(filled_)) {
            throw Error(ExitCode::internal,
                        fmt::format("{}: {} of {} elements were computed", variable_.path(), done, filled_.size()));
        }
    }

    Slab slab;

private:
    void mark(std::int64_t begin, std::int64_t n) {
        for (std::int64_t i = begin; i < begin + n; ++i) {
            if (filled_[static_cast<std::size_t>(i)]) {
                throw Error(ExitCode::internal, fmt::format("{}: element {} was computed twice", variable_.path(), i));
            }
            filled_[static_cast<std::size_t>(i)] = true;
        }
    }

    const Variable& variable_;
    std::vector<bool> filled_;  // of the slab's elements
};

// In place of dimensions: the sender has numbers of this variable, though perhaps not for the receiver.
constexpr std::int64_t announcement = -1;

std::vector<std::string> outgoing(const Schema& schema, const std::vector<Slab>& computed,
                                  const Communicator& communicator) {
    std::vector<std::string> messages(static_cast<std::size_t>(communicator.size()));
    std::set<std::int64_t> variables;
    for (const Slab& slab : computed) variables.insert(slab.variable);
    for (std::string& message : messages) {
        for (const std::int64_t variable : variables) {
            append(message, &variable, sizeof variable);
            append(message, &announcement, sizeof announcement);
        }
    }
    for (const Slab& slab : computed) {
        const Variable& variable = schema.variables[static_cast<std::size_t>(slab.variable)];
        const Shape shape = schema.shape_of(variable);
        const Range held = slab.count.empty() ? Range{0, 1} : Range{slab.start[0], slab.start[0] + slab.count[0]};
        for (int rank = 0; rank < communicator.size(); ++rank) {
            const Range owned = rows_of(shape, communicator, rank);
            const Range rows{std::max(held.begin, owned.begin), std::min(held.end, owned.end)};
            if (!rows.empty())
                append_rows(messages[static_cast<std::size_t>(rank)], slab, rows, size_of(variable.type));
        }
    }
    return messages;
}

}  // namespace

Slab own_rows(const Schema& schema, std::int64_t variable, const Communicator& communicator) {
    const Variable& about = schema.variables[static_cast<std::size_t>(variable)];
    const Shape shape = schema.shape_of(about);
    const Range rows = rows_of(shape, communicator, communicator.rank());
    Slab slab{variable, Shape(shape.size(), 0), shape, {}};
    if (!shape.empty()) {
        slab.start[0] = rows.begin;
        slab.count[0] = rows.size();
    }
    const std::int64_t elements = shape.empty() ? rows.size() : slab.elements();
    slab.data.resize(static_cast<std::size_t>(elements * size_of(about.type)));
    return slab;
}

std::vector<Slab> assemble(const Schema& schema, const std::vector<Slab>& computed, const Communicator& communicator) {
    std::map<std::int64_t, Target> targets;
    for (const std::string& message : communicator.all_to_all(outgoing(schema, computed, communicator))) {
        for (MessageReader reader(message); !reader.done();) {
            const std::int64_t which = reader.number(), dims = reader.number();
            Target& target = targets.try_emplace(which, schema, which, communicator).first->second;
            if (dims == announcement) continue;
            const Shape start = reader.numbers(dims), count = reader.numbers(dims);
            const std::int64_t bytes =
                product(count.begin(), count.end()) * size_of(schema.variables[static_cast<std::size_t>(which)].type);
            target.fill(start, count, reader.take(bytes));
        }
    }
    std::vector<Slab> slabs;
    for (auto& [which, target] : targets) {
        target.check_complete();
        if (!target.slab.data.empty()) slabs.push_back(std::move(target.slab));
    }
    return slabs;
}

}  // namespace geom
