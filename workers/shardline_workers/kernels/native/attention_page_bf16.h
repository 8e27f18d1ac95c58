// Attention on a page of bfloat16: keys and values lie as weights of that format do. Queries and weights of values are
// rounded to bfloat16 too; all sums are float32.
#pragma once
#include "attention_page.h"

namespace shardline {
namespace SL_TARGET {

// A row of an item's queries.
static void put_query(AttentionItem &item, int row, const uint16_t *query, int size) {
    for (int d = 0; d < size; d += TILE) put_row_values(item.rows + row * size + d, query + d);
}

// Vectors need no preparation.
struct PageRegisters {
    explicit PageRegisters(int) {}
};

// Rows of an item that see keys of a page: neighbours, as both ends of what a row sees grow with its number.
struct SeeingRows {
    int first = 0, count = 0;

    SeeingRows(const AttentionItem &item, const Page &page) {
        while (first < item.count && seen(item, page, first).none()) first++;
        while (first + count < item.count && !seen(item, page, first + count).none()) count++;
    }
};

static void add_bf16_page(const sl_attention &a, const AttentionItem &item, const Page &page, Softmax &softmax) {
    alignas(64) float products[PANEL_ROWS * BLOCK_SIZE_MAX];
    alignas(64) RowValue weights[PANEL_ROWS * BLOCK_SIZE_MAX];
    const int size = a.cache.head_dim, tiles = page.tiles();
    const SeeingRows rows(item, page);
    // Keys prefetch their values, values the next page's keys.
    const RowProduct keys = {
        page.keys, (ptrdiff_t)key_tile_bytes(a.cache), tiles, size / 2, size, BLOCK_SIZE_MAX, page.values - page.keys,
        false};
    multiply_rows(keys, item.rows + rows.first * size, products, rows.count);
    const ScoreRule rule(a);
    for (int i = 0; i < rows.count; i++) {
        F v[PAGE_TILES];
        const int row = rows.first + i;
        weigh_row(softmax, row, products + i * BLOCK_SIZE_MAX, rule, seen(item, page, row), tiles, size, v);
        for (int j = 0; j < tiles; j++) put_row_values(weights + i * BLOCK_SIZE_MAX + TILE * j, v[j]);
    }
    // Pairs beyond the last visible key would add 0 · whatever lies there.
    const RowProduct values = {page.values,
                               (ptrdiff_t)a.cache.block_size * TILE * 2,
                               size / TILE,
                               (page.visible + 1) / 2,
                               BLOCK_SIZE_MAX,
                               size,
                               (ptrdiff_t)((uintptr_t)page.next.keys - (uintptr_t)page.values),
                               true};
    multiply_rows(values, weights, softmax.sums + rows.first * size, rows.count);
}

}  // namespace SL_TARGET
}  // namespace shardline
