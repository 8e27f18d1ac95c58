// Operations that are calls to other ranks: no instruction set's, and one thread's.
#pragma once
#include "api.h"

namespace shardline {

// Whether a phase of an operation is one.
bool is_exchange(const sl_op &op, int phase);

// SL_OK, or the call's status.
int exchange(const sl_op &op, const sl_step &step);

}  // namespace shardline
