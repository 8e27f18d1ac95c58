// Attention on a page of bfloat16 by matrix instructions. Queries and weights of values are rounded to bfloat16; sums are
// float32, in the order of these instructions: other bits than the other instruction sets', the same for any rows.
#pragma once
#include "attention_product_amx.h"
#include "attention_weights_amx.h"

namespace shardline {
namespace SL_TARGET {

// Tile registers with as many rows as an item has, while they are needed.
using PageRegisters = TileShapes;

// As tiles: [rows / 16][head_dim / 32][16 rows][32], missing dimensions are zeros.
static void put_query(AttentionItem &item, int row, const uint16_t *query, int size) {
    const int blocks = (int)ceil_div(size, GROUP);
    uint16_t *to = item.tiles + (row / TILE * blocks * TILE + row % TILE) * GROUP;
    for (int d = 0; d < size; d += GROUP, to += TILE * GROUP) {
        const int count = size - d < GROUP ? size - d : GROUP;
        memset(to + count, 0, (size_t)(GROUP - count) * sizeof *to);
        memcpy(to, query + d, (size_t)count * sizeof *to);
    }
}

static void multiply_keys(const sl_attention &a, const AttentionItem &item, const Page &page, float *products) {
    const int size = a.cache.head_dim, whole = size / GROUP;
    alignas(64) uint8_t rest[PAGE_TILES * BLOCK];
    const ptrdiff_t tile_stride = (ptrdiff_t)key_tile_bytes(a.cache);
    if (size % GROUP) fill_up(page.keys + whole * BLOCK, tile_stride, page.tiles(), size % GROUP / 2, rest);
    PageProduct p;
    p.rows = reinterpret_cast<const uint8_t *>(item.tiles);
    p.row_bytes = LINE, p.row_block = BLOCK, p.row_tile = BLOCK * (ptrdiff_t)ceil_div(size, GROUP);
    p.tiles = page.keys, p.tile_stride = tile_stride, p.num_tiles = page.tiles(), p.num_blocks = whole;
    p.rest = size % GROUP ? rest : nullptr;
    p.out = products, p.out_stride = BLOCK_SIZE_MAX;
    p.ahead = item.count <= TILE ? page.values - page.keys : 0;
    multiply_page<false>(p, item.count);
}

static void add_values(const sl_attention &a, const AttentionItem &item, const Page &page, const uint16_t *weights,
                       Softmax &softmax) {
    const int size = a.cache.head_dim, whole = page.visible / GROUP, left = page.visible % GROUP;
    alignas(64) uint8_t rest[HEAD_DIM_MAX / TILE * BLOCK];
    const ptrdiff_t tile_stride = (ptrdiff_t)a.cache.block_size * TILE * 2;
    if (left) fill_up(page.values + whole * BLOCK, tile_stride, size / TILE, (left + 1) / 2, rest);
    PageProduct p;
    p.rows = reinterpret_cast<const uint8_t *>(weights);
    p.row_bytes = BLOCK_SIZE_MAX * 2, p.row_block = GROUP * 2, p.row_tile = TILE * p.row_bytes;
    p.tiles = page.values, p.tile_stride = tile_stride, p.num_tiles = size / TILE, p.num_blocks = whole;
    p.rest = left ? rest : nullptr;
    p.out = softmax.sums, p.out_stride = size;
    p.ahead = item.count <= TILE ? (ptrdiff_t)((uintptr_t)page.next - (uintptr_t)page.values) : 0;
    multiply_page<true>(p, item.count);
}

static void add_bf16_page(const sl_attention &a, const AttentionItem &item, const Page &page, Softmax &softmax) {
    alignas(64) float products[ATTENTION_ROWS * BLOCK_SIZE_MAX];
    alignas(64) uint16_t weights[ATTENTION_ROWS * BLOCK_SIZE_MAX];
    const ScoreRule rule(a);
    const bool is_rescored = rule.second != 0 || !(rule.first > 0);
    const int vectors = page.visible > GROUP ? 4 : 2, last = item.count - 1;
    const bool is_masked = item.from[last] > page.first_key || item.last[0] < page.first_key + vectors * TILE - 1;
    multiply_keys(a, item, page, products);
    for (int first = 0; first < item.count; first += TILE) {
        const int count = item.count - first < TILE ? item.count - first : TILE, at = first * BLOCK_SIZE_MAX;
        const RowTile tile = {item, page, first, count, products + at, weights + at, is_rescored ? 1.f : rule.first};
        if (is_rescored) rescore(tile, rule, page.tiles());
        weigh_tile(tile, vectors, is_masked, a.cache.head_dim, softmax);
    }
    add_values(a, item, page, weights, softmax);
}

}  // namespace SL_TARGET
}  // namespace shardline
