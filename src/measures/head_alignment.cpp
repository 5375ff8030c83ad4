#include "measures/head_alignment.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/assignment.hpp"

namespace geom {

namespace {

using Order = std::vector<std::int64_t>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The search of one key head of a and one of b. The caller turns what write_matrix() writes into its polar factor.
class GroupSearch {
public:
    GroupSearch(const HeadSimilarities& of, std::int64_t c, std::int64_t other)
        : of_(of), c_(c), other_(other), turns_(at(of.planes())) {
        if (of.group() == 1) order_ = own();
    }

    bool over() const noexcept { return beginning_ == beginnings; }
    double value() const noexcept { return value_; }
    const Order& order() const noexcept { return best_; }

    /// V_cc' + sum_h O_h,pi(h) of the present order, or V_cc' alone; hd x hd.
    void write_matrix(std::span<double> matrix) const {
        std::fill(matrix.begin(), matrix.end(), 0.0);
        add_block(of_.v, of_.kv_heads, c_, other_, matrix);
        for (std::int64_t i = 0; i < std::ssize(order_); ++i)
            add_block(of_.o, of_.heads, head(c_, i), head(other_, order_[at(i)]), matrix);
    }

    /// The best turns of the present order are known: what it is worth, and which order is to be tried next.
    void take(std::span<const double> polar, double nuclear_norm) {
        const double worth = nuclear_norm + turn_planes();
        if (!order_.empty()) {
            tried_.insert(order_);
            if (best_.empty() || worth > value_) {
                value_ = worth;
                best_ = order_;
            }
        }
        Order next = best_assignment(values_of_heads(polar), of_.group()).column_of;
        while (tried_.contains(next)) {
            if (++beginning_ == beginnings) return;
            next = beginning_ == own_order ? own() : by_invariants();
        }
        order_ = std::move(next);
    }

private:
    // The first beginning is the empty order, key and value alone, where there is more than one order.
    static constexpr int own_order = 1, beginnings = 3;

    std::int64_t head(std::int64_t group, std::int64_t i) const { return group * of_.group() + i; }

    void add_block(std::span<const float> products, std::int64_t blocks, std::int64_t i, std::int64_t j,
                   std::span<double> matrix) const {
        const std::int64_t hd = of_.head_dim, width = blocks * hd;
        for (std::int64_t r = 0; r < hd; ++r) {
            const float* row = products.data() + (i * hd + r) * width + j * hd;
            for (std::int64_t s = 0; s < hd; ++s) matrix[at(r * hd + s)] += double{row[s]};
        }
    }

    const std::complex<double>* planes_of(std::int64_t h, std::int64_t to) const {
        return of_.q.data() + (h * of_.heads + to) * of_.planes();
    }

    /// Sets the best turns of planes and returns what they are worth.
    double turn_planes() {
        double worth = 0.0;
        for (std::int64_t p = 0; p < of_.planes(); ++p) {
            std::complex<double> z = of_.k[at((c_ * of_.kv_heads + other_) * of_.planes() + p)];
            for (std::int64_t i = 0; i < std::ssize(order_); ++i)
                z += planes_of(head(c_, i), head(other_, order_[at(i)]))[p];
            turns_[at(p)] = best_turn(z, of_.phases[at(p)]);
            worth += (turns_[at(p)] * z).real();
        }
        return worth;
    }

    /// f(h, h') of a's query heads of this key head and b's, [G, G].
    template <class F>
    std::vector<double> table(F f) const {
        std::vector<double> values;
        for (std::int64_t i = 0; i < of_.group(); ++i) {
            for (std::int64_t j = 0; j < of_.group(); ++j) values.push_back(f(head(c_, i), head(other_, j)));
        }
        return values;
    }

    /// What each pair of heads is worth at the present turns.
    std::vector<double> values_of_heads(std::span<const double> polar) const {
        return table([&](std::int64_t h, std::int64_t to) {
            const std::int64_t hd = of_.head_dim, width = of_.heads * hd;
            double worth = 0.0;
            for (std::int64_t p = 0; p < of_.planes(); ++p) worth += (turns_[at(p)] * planes_of(h, to)[p]).real();
            for (std::int64_t r = 0; r < hd; ++r) {
                const float* row = of_.o.data() + (h * hd + r) * width + to * hd;
                for (std::int64_t s = 0; s < hd; ++s) worth += polar[at(r * hd + s)] * double{row[s]};
            }
            return worth;
        });
    }

    Order own() const {
        Order order;
        for (std::int64_t i = 0; i < of_.group(); ++i) order.push_back(i);
        return order;
    }

    Order by_invariants() const {
        const auto values = table([&](std::int64_t h, std::int64_t to) {
            const std::int64_t hd = of_.head_dim, width = of_.heads * hd;
            double worth = 0.0, square = 0.0;
            for (std::int64_t p = 0; p < of_.planes(); ++p) {
                const std::complex<double> z = planes_of(h, to)[p];
                worth += of_.phases[at(p)] ? std::abs(z) : std::abs(z.real());
            }
            for (std::int64_t r = 0; r < hd; ++r) {
                const float* row = of_.o.data() + (h * hd + r) * width + to * hd;
                for (std::int64_t s = 0; s < hd; ++s) square += double{row[s]} * double{row[s]};
            }
            return worth + std::sqrt(square);
        });
        return best_assignment(values, of_.group()).column_of;
    }

    const HeadSimilarities& of_;
    std::int64_t c_, other_;
    int beginning_ = 0;
    Order order_, best_;
    double value_ = 0.0;
    std::set<Order> tried_;
    std::vector<std::complex<double>> turns_;
};

/// Searches side by side, one polar factor of each at a time.
void run(std::span<GroupSearch> searches, std::int64_t elements, const PolarFactors& polar) {
    std::vector<double> matrices, norms;
    std::vector<GroupSearch*> going;
    for (;;) {
        going.clear();
        for (GroupSearch& search : searches) {
            if (!search.over()) going.push_back(&search);
        }
        if (going.empty()) return;
        matrices.resize(at(std::ssize(going) * elements));
        norms.resize(going.size());
        const auto matrix = [&](std::size_t i) { return std::span(matrices).subspan(i * at(elements), at(elements)); };
        for (std::size_t i = 0; i < going.size(); ++i) going[i]->write_matrix(matrix(i));
        polar(matrices, norms);
        for (std::size_t i = 0; i < going.size(); ++i) going[i]->take(matrix(i), norms[i]);
    }
}

}  // namespace

std::complex<double> best_turn(std::complex<double> z, bool phase) {
    if (!phase) return z.real() < 0 ? -1.0 : 1.0;
    const double size = std::abs(z);
    return size > 0 ? std::conj(z) / size : 1.0;
}

HeadAlignment align_heads(const HeadSimilarities& of, const PolarFactors& polar, std::int64_t at_once) {
    std::vector<double> worth;
    std::vector<Order> orders;
    for (std::int64_t begin = 0; begin < of.kv_heads * of.kv_heads; begin += at_once) {
        std::vector<GroupSearch> searches;
        for (std::int64_t i = begin; i < std::min(begin + at_once, of.kv_heads * of.kv_heads); ++i)
            searches.emplace_back(of, i / of.kv_heads, i % of.kv_heads);
        run(searches, of.head_dim * of.head_dim, polar);
        for (const GroupSearch& search : searches) {
            worth.push_back(search.value());
            orders.push_back(search.order());
        }
    }
    const Assignment of_groups = best_assignment(worth, of.kv_heads);
    HeadAlignment best;
    best.value = of_groups.value;
    for (std::int64_t c = 0; c < of.kv_heads; ++c) {
        const std::int64_t other = of_groups.column_of[at(c)];
        for (const std::int64_t i : orders[at(c * of.kv_heads + other)]) best.head_of.push_back(other * of.group() + i);
    }
    return best;
}

}  // namespace geom
