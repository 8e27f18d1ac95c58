// What attention carries from one page to the next.
#pragma once
#include "layout.h"

namespace shardline {

// Most rows that are taken together: two tiles of matrix instructions; vectors take 6.
constexpr int ATTENTION_ROWS = 2 * TILE;

// Online softmax of rows: greatest score (times log2 e), sum of weights, and values summed with these weights.
struct Softmax {
    alignas(64) float greatest[ATTENTION_ROWS], total[ATTENTION_ROWS];
    float sums[ATTENTION_ROWS * HEAD_DIM_MAX];  // [rows, head_dim]
};

}  // namespace shardline
