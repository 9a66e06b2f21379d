// How far a typed name is from a known one, for "did you mean". Context: normal. Thread-safe: no.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

namespace ubp {

// Counts insertions, deletions, substitutions and swaps of neighbours (Damerau-Levenshtein, each place edited
// once).
class EditDistance {
 public:
  EditDistance(std::string_view wanted, std::size_t limit) : wanted_(wanted), limit_(limit) {}

  // Returns limit + 1 for everything farther away than `limit`.
  std::size_t to(std::string_view text) {
    const std::size_t columns = wanted_.size();
    const std::size_t difference = text.size() > columns ? text.size() - columns : columns - text.size();
    if (difference > limit_) return limit_ + 1;
    for (std::vector<std::size_t>* row : {&before_, &above_, &row_}) row->assign(columns + 1, 0);
    for (std::size_t column = 0; column <= columns; ++column) row_[column] = column;
    for (std::size_t line = 1; line <= text.size(); ++line) {
      before_.swap(above_);
      above_.swap(row_);
      row_[0] = line;
      std::size_t best = line;
      for (std::size_t column = 1; column <= columns; ++column) {
        const bool differ = text[line - 1] != wanted_[column - 1];
        std::size_t cost =
            std::min({above_[column] + 1, row_[column - 1] + 1, above_[column - 1] + (differ ? 1u : 0u)});
        if (line > 1 && column > 1 && text[line - 1] == wanted_[column - 2] && text[line - 2] == wanted_[column - 1]) {
          cost = std::min(cost, before_[column - 2] + 1);
        }
        row_[column] = cost;
        best = std::min(best, cost);
      }
      if (best > limit_ + 1) return limit_ + 1;  // a swap may still come back from one above the limit
    }
    return std::min(row_[columns], limit_ + 1);
  }

 private:
  std::string_view wanted_;
  std::size_t limit_;
  std::vector<std::size_t> before_;
  std::vector<std::size_t> above_;
  std::vector<std::size_t> row_;
};

}  // namespace ubp
