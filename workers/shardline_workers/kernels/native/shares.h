// Into how many shares an operation is cut: pieces that threads take one after the other, as each gets to it. They are
// so small that a thread seldom waits for another's last one, and so large that taking them costs nothing.
#pragma once
#include "api.h"

namespace shardline {

// Some operations need two: the shares of the second see all that those of the first have found.
constexpr int NUM_PHASES = 2;

// Who shares an operation, and what an instruction set makes of it.
struct Sharing {
    int num_threads;
    int64_t num_partials;  // that attention's scratch has room for
    const int *item_rows;  // see Operations
};

// 0 where a phase has nothing to do. One thread takes everything at once.
int num_shares(const sl_op &op, int phase, const sl_step &step, const Sharing &sharing);

// Groups of at most item_rows query rows of a sequence that attention takes together, for each key head.
int num_groups(const sl_attention &a, const sl_step &step, int sequence, int item_rows);

// Whether there are too few items to keep the threads busy: then their splits are spread, and merged in a second phase.
bool attends_by_splits(const sl_attention &a, const sl_step &step, const Sharing &sharing);

}  // namespace shardline
