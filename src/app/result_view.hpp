// A finished result as its tables see it: the file's numbers, but those that another anchor changes anew.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "app/options.hpp"
#include "output/result_file.hpp"

namespace geom {

class ResultView {
public:
    explicit ResultView(ResultReader file) : file_(std::move(file)) {}

    /// From now on what depends on the anchor is derived for this decoder layer (negative: from the last one back), not
    /// read. Throws Error(usage) where no such layer or no analysis is in the file.
    void take_anchor(std::int64_t anchor);

    /// The head to look at in depth. Throws Error(usage) where it is not in the file.
    void take_head(HeadName head);

    /// The layers that variation is summarised over. Throws Error(usage) where the file does not have them.
    void take_block(Range block);

    bool has(const std::string& path) const;
    std::vector<std::int64_t> shape(const std::string& path) const { return file_.shape(path); }
    /// All of a small variable.
    std::vector<double> all(const std::string& path) const;
    double number(const std::string& path) const { return all(path).front(); }
    /// A box of a large one: of what does not depend on the anchor.
    std::vector<double> box(const std::string& path, const std::vector<std::int64_t>& start,
                            const std::vector<std::int64_t>& count) const {
        return file_.read(path, start, count);
    }
    /// An attribute of group analysis ("verdict"); "" where there is none.
    std::string word(const std::string& name) const;
    const ResultReader& file() const { return file_; }

    /// Numbers of the decoder layers that a group is defined for.
    std::vector<std::int64_t> layers(const std::string& group) const;
    std::int64_t hidden() const { return static_cast<std::int64_t>(file_.number_attribute("", "hidden")); }
    /// The row of the anchor in group analysis.
    std::int64_t anchor() const;
    /// The head taken, else the first of the layer in the middle, L div 2. For files that have group heads.
    HeadName head() const;
    /// The block taken, else the run's.
    Range block() const;

private:
    ResultReader file_;
    bool other_anchor_ = false;
    std::map<std::string, std::vector<double>> derived_;  // by path, each whole
    std::map<std::string, std::string> words_;
    std::optional<HeadName> head_;
    std::optional<Range> block_;
};

}  // namespace geom
