// Attention on a page of bfloat16: keys and values lie as weights of that format do. Queries and weights of values are
// rounded to bfloat16 too; all sums are float32.
#pragma once
#include "attention_page.h"

namespace shardline {
namespace SL_TARGET {

// rows · tiles, with as many tiles at a time as the registers hold.
static void multiply_rows(Product p, int tiles, int num_pairs, ptrdiff_t row_step) {
    constexpr int MOST = most_tiles(SL_BF16);
    for (int done = 0, n; done < tiles; done += n, p.tiles += n * p.tile_stride, p.out += n * TILE) {
        n = tiles - done >= MOST ? MOST : 1;
        if (n == MOST) row_product<MOST>(p, num_pairs, row_step);
        else if constexpr (MOST > 1) row_product<1>(p, num_pairs, row_step);
    }
}

static void add_bf16_values(const sl_attention &a, const AttentionItem &item, const Page &page, Softmax &softmax,
                            const uint16_t *weights) {
    alignas(64) float products[PANEL_ROWS * HEAD_DIM_MAX];
    const int size = a.cache.head_dim;
    Product p{};
    p.tiles = page.values;
    p.tile_stride = (ptrdiff_t)a.cache.block_size * TILE * 2;
    p.panel = (const uint8_t *)weights;
    p.panel_rows = item.count;
    p.out = products;
    p.out_stride = size;
    p.ahead = (ptrdiff_t)((uintptr_t)page.next - (uintptr_t)page.values);  // values prefetch the next page's keys
    // Pairs beyond the last visible key would add 0 · whatever lies there.
    multiply_rows(p, size / TILE, (page.visible + 1) / 2, BLOCK_SIZE_MAX / 2);
    for (int row = 0; row < item.count; row++) {
        if (seen(item, page, row).none()) continue;
        float *sums = softmax.sums + row * size;
        for (int d = 0; d < size; d += TILE) store(sums + d, add(load(sums + d), load(products + row * size + d)));
    }
}

static void add_bf16_page(const sl_attention &a, const AttentionItem &item, const Page &page, Softmax &softmax) {
    alignas(64) float products[PANEL_ROWS * BLOCK_SIZE_MAX];
    alignas(64) uint16_t weights[PANEL_ROWS * BLOCK_SIZE_MAX];
    const int size = a.cache.head_dim, tiles = page.tiles();
    Product p{};
    p.tiles = page.keys;
    p.tile_stride = (ptrdiff_t)key_tile_bytes(a.cache);
    p.panel = item.queries;
    p.panel_rows = item.count;
    p.out = products;
    p.out_stride = BLOCK_SIZE_MAX;
    p.ahead = page.values - page.keys;  // keys prefetch their values
    multiply_rows(p, tiles, size / 2, size / 2);
    const ScoreRule rule(a);
    for (int row = 0; row < item.count; row++) {
        const Seen keys = seen(item, page, row);
        uint16_t *out = weights + row * BLOCK_SIZE_MAX;
        if (keys.none()) {
            memset(out, 0, sizeof(uint16_t) * BLOCK_SIZE_MAX);
            continue;
        }
        F v[PAGE_TILES];
        weigh_row(softmax, row, products + row * BLOCK_SIZE_MAX, rule, keys, tiles, size, v);
        for (int j = 0; j < tiles; j++) store_bf16(out + TILE * j, v[j]);
    }
    add_bf16_values(a, item, page, softmax, weights);
}

}  // namespace SL_TARGET
}  // namespace shardline
