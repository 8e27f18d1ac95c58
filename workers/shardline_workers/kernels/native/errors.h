// Refusals: a status for the caller and a text that says what, value and bound.
#pragma once
#include "api.h"

namespace shardline {

// Keeps a text for sl_last_error (printf's format, cut at 255 characters) and returns the status.
__attribute__((format(printf, 2, 3))) int refuse(int status, const char *format, ...);

}  // namespace shardline
