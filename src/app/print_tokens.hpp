// geom-mpi tokens: what a model's tokenizer makes of a text.
#pragma once

#include "app/options.hpp"

namespace geom {

/// Prints the ids to stdout, one a line, as --token-ids reads them. Throws Error(input) when the model has no tokenizer
/// that is read, or the text is missing or not UTF-8; Error(output) when stdout takes no more.
void print_tokens(const TokensOptions& options);

}  // namespace geom
