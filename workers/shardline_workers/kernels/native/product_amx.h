// Panels of up to 16 rows × tiles of 16 outputs by the matrix instruction for bfloat16.
//
// Its sums have an order of their own: of 32 inputs the even ones are added up from zero, each product rounded once with
// its sum, so are the odd ones, and the sum of both is added to what the register held; denormals are zero. So bfloat16
// weights give other bits here than with the other instruction sets, and this one is used for any number of rows.
//
// There is an instruction for int8 too, but it would not pay: a group of 32 inputs is one instruction, and what follows
// it for each group (its sums to memory and back, and two or three products with scales for each row) takes longer than
// the integer products of vectors do. Measured: 1.0 to 1.2 times as fast at 16 to 512 rows.
#pragma once
#include "product_avx512.h"
#include "tiles_amx.h"

namespace shardline {
namespace SL_TARGET {

constexpr int PANELS_AT_ONCE = 2, TILES_OF_PRODUCT = 2;  // at once: four tiles of sums, two of inputs, two of weights

struct TiledProduct {
    const uint8_t *tiles;
    ptrdiff_t tile_stride;
    const uint8_t *panels[PANELS_AT_ONCE];
    int rows[PANELS_AT_ONCE];
    int num_blocks;
    float *out[PANELS_AT_ONCE];  // [rows, 16 · tiles]
    ptrdiff_t out_stride;
    // Prefetch: of each block the cache lines first_line … last_line - 1, so many bytes ahead.
    ptrdiff_t ahead;
    int first_line, last_line;
};

// Registers: sums 0 … 3, inputs 4 and 5, weights 6 and 7.
template <int PANELS, int TILES>
static inline void multiply_block(const TiledProduct &p, int block) {
    const uint8_t *w = p.tiles + block_bytes(SL_BF16) * block;
    const ptrdiff_t at = panel_group_bytes(SL_PAIRS) * block;
    tile_load<4>(p.panels[0] + at * p.rows[0], LINE);
    tile_load<6>(w, LINE);
    tile_dot_bf16<0, 4, 6>();
    if (TILES > 1) {
        tile_load<7>(w + p.tile_stride, LINE);
        tile_dot_bf16<1, 4, 7>();
    }
    if (PANELS > 1) {
        tile_load<5>(p.panels[1] + at * p.rows[1], LINE);
        tile_dot_bf16<2, 5, 6>();
        if (TILES > 1) tile_dot_bf16<3, 5, 7>();
    }
}

// Registers have 16 rows; those beyond a panel's come from whatever lies behind it, and are dropped.
template <int SUMS>
static void store_rows(float *out, ptrdiff_t stride, int rows) {
    if (rows == TILE) return tile_store<SUMS>(out, stride * (ptrdiff_t)sizeof(float));
    alignas(64) float sums[TILE * TILE];
    tile_store<SUMS>(sums, LINE);
    for (int m = 0; m < rows; m++) store(out + m * stride, load(sums + m * TILE));
}

template <int PANELS, int TILES>
static void tiled_product(const TiledProduct &p) {
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
    for (int block = 0; block < p.num_blocks; block++) {
        const uint8_t *next = p.tiles + block_bytes(SL_BF16) * block + p.ahead;
        for (int t = 0; t < TILES; t++)
            for (int line = p.first_line; line < p.last_line; line++)
                prefetch_far(next + p.tile_stride * t + line * LINE);
        multiply_block<PANELS, TILES>(p, block);
    }
    store_rows<0>(p.out[0], p.out_stride, p.rows[0]);
    if (TILES > 1) store_rows<1>(p.out[0] + TILE, p.out_stride, p.rows[0]);
    if (PANELS > 1) store_rows<2>(p.out[1], p.out_stride, p.rows[1]);
    if (PANELS > 1 && TILES > 1) store_rows<3>(p.out[1] + TILE, p.out_stride, p.rows[1]);
}

static void tiled_product(const TiledProduct &p, int panels, int tiles) {
    if (panels == 1 && tiles == 1) tiled_product<1, 1>(p);
    else if (panels == 1) tiled_product<1, 2>(p);
    else if (tiles == 1) tiled_product<2, 1>(p);
    else tiled_product<2, 2>(p);
}

}  // namespace SL_TARGET
}  // namespace shardline
