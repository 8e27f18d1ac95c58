// One KV page and a few rows: scores, the online softmax's step (Milakov, Gimelshein 2018), and what values add. The
// two products are attention_page_bf16.h's or attention_page_int8.h's; here is what both share.
#pragma once
#include "attention_scratch.h"
#include "exponential.h"
#include "row_product.h"

namespace shardline {
namespace SL_TARGET {

constexpr float NOTHING = -1e30f;  // a score that gets no weight; finite, so that differences of two are no NaN
constexpr int PAGE_TILES = BLOCK_SIZE_MAX / TILE;

// One head's part of the block that is read next, for prefetching: keys of it that any row will see.
struct NextPage {
    const uint8_t *keys;
    int visible;
};

// Rows first … first + count - 1 of a sequence's (token, query head) pairs, on one key head.
struct AttentionItem {
    int sequence, kv_head, first, count;
    int from[ATTENTION_ROWS], last[ATTENTION_ROWS];            // positions that each row sees, both included
    int begin, end;                                            // least and greatest of them
    NextPage following;                                        // what is read after this item
    union {                                                    // queries
        alignas(64) RowValue rows[PANEL_ROWS * HEAD_DIM_MAX];  // [count, head_dim]
        alignas(64) uint8_t panel[PANEL_ROWS * HEAD_DIM_MAX / GROUP * 2 * 48];  // of an INT8 cache: SL_INT8
        alignas(64) uint16_t tiles[ATTENTION_ROWS * HEAD_DIM_MAX];              // of matrix instructions
    };
};

// Most rows of an item, by the cache's format.
constexpr int ITEM_ROWS[SL_KV_FORMAT_COUNT] = {is_tiled(SL_PAIRS) ? ATTENTION_ROWS : PANEL_ROWS, PANEL_ROWS};

// One head's part of a block.
struct Page {
    const uint8_t *keys, *values;
    int first_key, visible;  // position of key 0; keys that any row sees
    NextPage next;
    int tiles() const { return (visible + TILE - 1) / TILE; }
};

// Keys of a page that a row sees: from … end - 1.
struct Seen {
    int from, end;
    bool none() const { return from >= end; }
};

static Seen seen(const AttentionItem &item, const Page &page, int row) {
    const int from = item.from[row] - page.first_key, end = item.last[row] - page.first_key + 1;
    return {from > 0 ? from : 0, end < page.visible ? end : page.visible};
}

// Products of queries and keys to scores times log2 e: x · first, or (e^2x - 1) / (e^2x + 1) · second with softcap.
struct ScoreRule {
    float first, second;

    explicit ScoreRule(const sl_attention &a)
        : first(a.softcap > 0 ? a.scale / a.softcap * 2 * LOG2_E : a.scale * LOG2_E), second(a.softcap * LOG2_E) {}

    F score(F product) const {
        const F x = mul(product, set(first));
        if (second == 0) return x;
        const F e = exp2(select(less(set(126.f), x), set(126.f), x));
        return mul(div(sub(e, set(1)), add(e, set(1))), set(second));
    }
};

// A row's scores to its weights `v`, which do not sum to 1 yet; rescales what the row has summed so far.
static void weigh_row(Softmax &softmax, int row, const float *products, const ScoreRule &rule, Seen seen, int tiles,
                      int size, F *v) {
    F greatest = set(softmax.greatest[row]), total = set(0);
    for (int j = 0; j < tiles; j++) {
        v[j] = select(first_lanes(seen.end - TILE * j), rule.score(load(products + TILE * j)), set(NOTHING));
        if (seen.from > TILE * j) v[j] = select(first_lanes(seen.from - TILE * j), set(NOTHING), v[j]);
        greatest = max(greatest, v[j]);
    }
    const float now = reduce_max(greatest), before = softmax.greatest[row];
    for (int j = 0; j < tiles; j++) {
        v[j] = exp2(sub(v[j], set(now)));
        total = add(total, v[j]);
    }
    if (now == before) {  // the common case once the greatest score has been seen
        softmax.total[row] += reduce_add(total);
        return;
    }
    const float rescale = exp2(before - now);
    softmax.greatest[row] = now;
    softmax.total[row] = softmax.total[row] * rescale + reduce_add(total);
    float *sums = softmax.sums + row * size;
    for (int d = 0; d < size; d += TILE) store(sums + d, mul(load(sums + d), set(rescale)));
}

}  // namespace SL_TARGET
}  // namespace shardline
