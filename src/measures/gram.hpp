// gram[l, l', h] = <g[l,h], g[l',h]>_F of the QK operators g[l,h] = W_K[l,c(h)]^T W_Q[l,h], never formed:
// tr(W_Q^T W_K W_K'^T W_Q') = sum_ij (W_K W_K'^T)_ij (W_Q W_Q'^T)_ij with hd x hd products.
#pragma once

#include "measures/measure.hpp"

namespace geom {

Measure gram_measure();

/// The same of folded blocks, as gram/gram_folded. Not by default: --folded asks for it beside gram.
Measure folded_gram_measure();

}  // namespace geom
