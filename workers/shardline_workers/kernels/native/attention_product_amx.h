// The two products of attention on a page of bfloat16 by matrix instructions: up to 32 rows (two tiles) times the tiles
// of a page, which lie as these instructions read them. A row's sums are those of product_amx.h: the order of 32 inputs
// at a time, the same for any number of rows.
#pragma once
#include "tiles_amx.h"

namespace shardline {
namespace SL_TARGET {

constexpr int BLOCK = TILE * LINE;  // bytes of 32 inputs of a tile

// What remains to be prefetched of a page that is read next: its keys, then the tiles of its values.
struct PageFetch {
    const uint8_t *at;
    int left, tiles;      // lines of this part; parts behind it
    const uint8_t *tile;  // the first of these
    ptrdiff_t tile_stride;
    int tile_lines;
    int step;  // lines with each block of a product

    void go_on() {
        for (int n = step; n; n--, left--, at += LINE) {
            while (left == 0) {
                if (tiles-- <= 0) return void(step = 0);
                at = tile, left = tile_lines, tile += tile_stride;
            }
            prefetch_far(at);
        }
    }
};

struct PageProduct {
    PageFetch &fetch;     // goes on with each block
    const uint8_t *rows;  // bfloat16
    // Bytes from one row, one block of 32 inputs, and 16 rows to the next.
    ptrdiff_t row_bytes, row_block, row_tile;
    const uint8_t *tiles;
    ptrdiff_t tile_stride;
    int num_tiles, num_blocks;  // whole blocks
    const uint8_t *rest;        // [tiles] blocks that were filled up with zeros, see fill_up(); NULL: none
    float *out;                 // [rows, out_stride]
    ptrdiff_t out_stride;
};

// The last inputs of each tile, `lines` pairs, and zeros in the place of those that would complete 32: whatever lies
// there may be no number, and zero times that would not be zero.
static void fill_up(const uint8_t *from, ptrdiff_t tile_stride, int num_tiles, int lines, uint8_t *blocks) {
    for (int tile = 0; tile < num_tiles; tile++, from += tile_stride, blocks += BLOCK) {
        memcpy(blocks, from, (size_t)(lines * LINE));
        memset(blocks + lines * LINE, 0, (size_t)(BLOCK - lines * LINE));
    }
}

// Registers: sums 0 … 3, rows 4 and 5, tiles 6 and 7.
template <int ROW_TILES, int TILES>
static inline void add_page_block(const PageProduct &p, int block, const uint8_t *w, ptrdiff_t tile_stride) {
    const uint8_t *rows = p.rows + p.row_block * block;
    tile_load<4>(rows, p.row_bytes);
    tile_load<6>(w, LINE);
    tile_dot_bf16<0, 4, 6>();
    if (TILES > 1) {
        tile_load<7>(w + tile_stride, LINE);
        tile_dot_bf16<1, 4, 7>();
    }
    if (ROW_TILES > 1) {
        tile_load<5>(rows + p.row_tile, p.row_bytes);
        tile_dot_bf16<2, 5, 6>();
        if (TILES > 1) tile_dot_bf16<3, 5, 7>();
    }
}

template <int SUMS, bool ADDS>
static inline void begin_sums(const float *out, ptrdiff_t stride) {
    if (ADDS) tile_load<SUMS>(out, stride);
    else tile_zero<SUMS>();
}

template <int ROW_TILES, int TILES, bool ADDS>
static void multiply_page_tiles(const PageProduct &p, int tile) {
    float *out = p.out + tile * TILE, *lower = out + TILE * p.out_stride;
    const ptrdiff_t stride = p.out_stride * (ptrdiff_t)sizeof(float);
    const uint8_t *w = p.tiles + p.tile_stride * tile;
    begin_sums<0, ADDS>(out, stride);
    if (TILES > 1) begin_sums<1, ADDS>(out + TILE, stride);
    if (ROW_TILES > 1) begin_sums<2, ADDS>(lower, stride);
    if (ROW_TILES > 1 && TILES > 1) begin_sums<3, ADDS>(lower + TILE, stride);
    for (int block = 0; block < p.num_blocks; block++, w += BLOCK) {
        p.fetch.go_on();
        add_page_block<ROW_TILES, TILES>(p, block, w, p.tile_stride);
    }
    p.fetch.go_on();
    if (p.rest) add_page_block<ROW_TILES, TILES>(p, p.num_blocks, p.rest + tile * BLOCK, BLOCK);
    tile_store<0>(out, stride);
    if (TILES > 1) tile_store<1>(out + TILE, stride);
    if (ROW_TILES > 1) tile_store<2>(lower, stride);
    if (ROW_TILES > 1 && TILES > 1) tile_store<3>(lower + TILE, stride);
}

template <int ROW_TILES, bool ADDS>
static void multiply_page(const PageProduct &p) {
    int tile = 0;
    for (; tile + 1 < p.num_tiles; tile += 2) multiply_page_tiles<ROW_TILES, 2, ADDS>(p, tile);
    if (tile < p.num_tiles) multiply_page_tiles<ROW_TILES, 1, ADDS>(p, tile);
}

// out = rows · tiles, or plus that. Whole tiles of 16 rows are written.
template <bool ADDS>
static void multiply_page(const PageProduct &p, int num_rows) {
    if (num_rows > TILE) multiply_page<2, ADDS>(p);
    else multiply_page<1, ADDS>(p);
}

}  // namespace SL_TARGET
}  // namespace shardline
