// Attention on a page of bfloat16 by matrix instructions. Queries and weights of values are rounded to bfloat16; sums
// are float32, in the order of these instructions: other bits than the other instruction sets', the same for any rows.
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

// The next page, spread over the products of this one. Not where many rows share a page: they come back to it soon.
static PageFetch fetch_beside(const sl_attention &a, const AttentionItem &item, const Page &page) {
    const sl_kv_cache &cache = a.cache;
    const int key_tiles = (page.next.visible + TILE - 1) / TILE, value_tiles = cache.head_dim / TILE;
    PageFetch fetch;
    fetch.at = page.next.keys, fetch.left = key_tiles * (int)(key_tile_bytes(cache) / LINE);
    fetch.tile = page.next.keys + key_bytes(cache), fetch.tile_stride = (ptrdiff_t)cache.block_size * TILE * 2;
    fetch.tiles = value_tiles, fetch.tile_lines = (page.next.visible + 1) / 2;
    const int lines = fetch.left + value_tiles * fetch.tile_lines;
    const int visits = (page.tiles() + 1) / 2 * (cache.head_dim / GROUP + 1) +
                       (value_tiles + 1) / 2 * (page.visible / GROUP + 1);
    fetch.step = item.count > TILE ? 0 : (lines + visits - 1) / visits;
    return fetch;
}

static void multiply_keys(const sl_attention &a, const AttentionItem &item, const Page &page, float *products,
                          PageFetch &fetch) {
    const int size = a.cache.head_dim, whole = size / GROUP;
    alignas(64) uint8_t rest[PAGE_TILES * BLOCK];
    const ptrdiff_t tile_stride = (ptrdiff_t)key_tile_bytes(a.cache);
    if (size % GROUP) fill_up(page.keys + whole * BLOCK, tile_stride, page.tiles(), size % GROUP / 2, rest);
    PageProduct p{fetch};
    p.rows = reinterpret_cast<const uint8_t *>(item.tiles);
    p.row_bytes = LINE, p.row_block = BLOCK, p.row_tile = BLOCK * (ptrdiff_t)ceil_div(size, GROUP);
    p.tiles = page.keys, p.tile_stride = tile_stride, p.num_tiles = page.tiles(), p.num_blocks = whole;
    p.rest = size % GROUP ? rest : nullptr;
    p.out = products, p.out_stride = BLOCK_SIZE_MAX;
    multiply_page<false>(p, item.count);
}

static void add_values(const sl_attention &a, const AttentionItem &item, const Page &page, const uint16_t *weights,
                       Softmax &softmax, PageFetch &fetch) {
    const int size = a.cache.head_dim, whole = page.visible / GROUP, left = page.visible % GROUP;
    alignas(64) uint8_t rest[HEAD_DIM_MAX / TILE * BLOCK];
    const ptrdiff_t tile_stride = (ptrdiff_t)a.cache.block_size * TILE * 2;
    if (left) fill_up(page.values + whole * BLOCK, tile_stride, size / TILE, (left + 1) / 2, rest);
    PageProduct p{fetch};
    p.rows = reinterpret_cast<const uint8_t *>(weights);
    p.row_bytes = BLOCK_SIZE_MAX * 2, p.row_block = GROUP * 2, p.row_tile = TILE * p.row_bytes;
    p.tiles = page.values, p.tile_stride = tile_stride, p.num_tiles = size / TILE, p.num_blocks = whole;
    p.rest = left ? rest : nullptr;
    p.out = softmax.sums, p.out_stride = size;
    multiply_page<true>(p, item.count);
}

static void add_bf16_page(const sl_attention &a, const AttentionItem &item, const Page &page, Softmax &softmax) {
    alignas(64) float products[ATTENTION_ROWS * BLOCK_SIZE_MAX];
    alignas(64) uint16_t weights[ATTENTION_ROWS * BLOCK_SIZE_MAX];
    const ScoreRule rule(a);
    const bool is_rescored = rule.second != 0 || !(rule.first > 0);
    const int vectors = page.visible > GROUP ? 4 : 2, last = item.count - 1;
    const bool is_masked = item.from[last] > page.first_key || item.last[0] < page.first_key + vectors * TILE - 1;
    PageFetch fetch = fetch_beside(a, item, page);
    multiply_keys(a, item, page, products, fetch);
    for (int first = 0; first < item.count; first += TILE) {
        const int count = item.count - first < TILE ? item.count - first : TILE, at = first * BLOCK_SIZE_MAX;
        const RowTile tile = {item, page, first, count, products + at, weights + at, is_rescored ? 1.f : rule.first};
        if (is_rescored) rescore(tile, rule, page.tiles());
        weigh_tile(tile, vectors, is_masked, a.cache.head_dim, softmax);
    }
    add_values(a, item, page, weights, softmax, fetch);
}

}  // namespace SL_TARGET
}  // namespace shardline
