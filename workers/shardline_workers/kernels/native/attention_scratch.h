// What attention carries from one page to the next.
#pragma once
#include "layout.h"

namespace shardline {

// Online softmax of up to 6 rows: greatest score (times log2 e), sum of weights, and values summed with these weights.
struct Softmax {
    float greatest[PANEL_ROWS], total[PANEL_ROWS];
    alignas(64) float sums[PANEL_ROWS * HEAD_DIM_MAX];  // [rows, head_dim]
};

}  // namespace shardline
