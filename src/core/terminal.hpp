// Whether somebody looks at the standard error, and how wide what they see is.
#pragma once

namespace geom {

/// Columns of the terminal that the standard error ends in, also through mpirun, which gives ranks pipes; 0 when there
/// is none, or one that knows no escapes (TERM is unset or "dumb").
int terminal_columns();

}  // namespace geom
