// What passes through a body of Collectives, exchange by exchange.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "mpi/collectives.hpp"

namespace geom::test {

class CountingCollectives final : public Collectives {
public:
    struct Counts {
        std::vector<Message> sends, receives;
    };

    explicit CountingCollectives(Collectives& body) : body_(body) {}

    std::string name() const override { return body_.name(); }
    void exchange(std::span<const Message> sends, std::span<const Message> receives) override {
        exchanges_.push_back({{sends.begin(), sends.end()}, {receives.begin(), receives.end()}});
        body_.exchange(sends, receives);
    }

    const std::vector<Counts>& exchanges() const noexcept { return exchanges_; }

private:
    Collectives& body_;
    std::vector<Counts> exchanges_;
};

}  // namespace geom::test
