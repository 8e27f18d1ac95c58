// How much of a row of logits a rank tells, as all ranks reckon: no sizes are sent.
#pragma once
#include "api.h"

namespace shardline {

// Candidates; 0: all logits, which are fewer bytes where candidates are half of them.
inline int64_t num_told(const sl_gather_logits &g, int rank, int64_t row) {
    const int64_t count = g.num_candidates[row];
    return 2 * count < g.rank_sizes[rank] ? count : 0;
}

// Candidates of a rank in all rows before this one: where its own begin.
inline int64_t candidates_before(const sl_gather_logits &g, int rank, int64_t row) {
    int64_t count = 0;
    for (int64_t other = 0; other < row; other++) count += num_told(g, rank, other);
    return count;
}

}  // namespace shardline
