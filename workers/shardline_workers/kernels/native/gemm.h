// The one matrix product for every number of rows. Tiles of weights are outermost (they stay in L1 and L2), panels of
// activations inside (from L2); the inner loop runs over all inputs, so that sums always come in the same order.
//
// The panels on the first tiles share the prefetch of the next tiles into L2. Tiles are short (5.7 KB at 576 inputs):
// the hardware's prefetcher never gets going, and without this, 2 to 16 rows ran at half the speed.
#pragma once
#include "columns.h"
#include "product.h"
#ifdef __AVX512F__
#include "gemm_unpacked.h"
#endif
#ifdef SL_AMX
#include "gemm_amx.h"
#endif

namespace shardline {
namespace SL_TARGET {

constexpr int FETCHING_PANELS = 4;               // that share the prefetch
constexpr ptrdiff_t FETCH_MAX = 1 << 20;         // next tiles farther away than this would fall out of L2 again
constexpr ptrdiff_t FETCH_AHEAD_OF_HUGE = 2048;  // then only a little ahead

template <int FORMAT>
static int tiles_at_once(const PanelSplit &split, int left) {
    if (split.start(split.num_panels) == 1 && FORMAT != SL_BF16) return 1;
    const int most = most_tiles(FORMAT);
    return left >= most ? most : left >= 2 && most > 2 ? 2 : 1;
}

template <int FORMAT>
static void run_product(const Product &p, int tiles) {
    constexpr int MOST = most_tiles(FORMAT);
    if (tiles == 1) product<FORMAT, 1>(p);
    else if (tiles == MOST) product<FORMAT, MOST>(p);
    else if constexpr (MOST > 2) product<FORMAT, 2>(p);
}

// The part of each block that a panel prefetches: none but for the first few.
template <int FORMAT>
static void share_fetch(Product &p, int tiles, int panel, int num_panels) {
    constexpr int LINES = num_lines(FORMAT);
    const int sharing = num_panels < FETCHING_PANELS ? num_panels : FETCHING_PANELS;
    const ptrdiff_t next = tiles * p.tile_stride;
    p.ahead = next <= FETCH_MAX ? next : FETCH_AHEAD_OF_HUGE;
    p.first_line = panel < sharing ? LINES * panel / sharing : 0;
    p.last_line = panel < sharing ? LINES * (panel + 1) / sharing : 0;
}

// Tiles that end beyond num_outputs go through a buffer.
template <int FORMAT>
static void run_clipped(Product p, int tiles, int columns) {
    alignas(64) float buffer[PANEL_ROWS * 4 * TILE];
    float *out = p.out;
    const ptrdiff_t stride = p.out_stride;
    p.out = buffer;
    p.out_stride = 4 * TILE;
    run_product<FORMAT>(p, tiles);
    for (int m = 0; m < p.panel_rows; m++)
        memcpy(out + m * stride, buffer + m * 4 * TILE, sizeof(float) * (size_t)columns);
}

template <int FORMAT>
static void run_panel(const Product &p, int tiles, int columns) {
    if (columns >= tiles * TILE) run_product<FORMAT>(p, tiles);
    else run_clipped<FORMAT>(p, tiles, columns);
}

template <int FORMAT>
static void multiply_format(const sl_weight &weight, const sl_panels &x, const PanelSplit &split, int begin, int end,
                            const Columns &to) {
    const int64_t row_bytes = panel_row_bytes(x.kind, x.num_inputs);
#ifdef __AVX512F__
    if constexpr (FORMAT != SL_BF16) begin = multiply_unpacked<FORMAT>(weight, x, split, begin, end, to);
#endif
    Product p;
    p.tile_stride = tile_bytes(FORMAT, weight.num_inputs);
    p.num_blocks = (int)ceil_div(weight.num_inputs, GROUP);
    p.out_stride = to.stride;
    for (int tile = begin, tiles; tile < end; tile += tiles) {
        tiles = tiles_at_once<FORMAT>(split, end - tile);
        p.tiles = static_cast<const uint8_t *>(weight.tiles) + p.tile_stride * tile;
        for (int panel = 0; panel < split.num_panels; panel++) {
            const int start = split.start(panel);
            p.panel = static_cast<const uint8_t *>(x.bytes) + row_bytes * start;
            p.panel_rows = split.size(panel);
            p.out = to.out + start * to.stride + (tile - to.first_tile) * TILE;
            share_fetch<FORMAT>(p, tiles, panel, split.num_panels);
            run_panel<FORMAT>(p, tiles, to.num_outputs - tile * TILE);
        }
    }
}

// Columns of tiles begin … end - 1 of x · weight transposed. split: of x, whose panels begin at x.bytes.
static void multiply(const sl_weight &weight, const sl_panels &x, const PanelSplit &split, int begin, int end,
                     const Columns &to) {
#ifdef SL_AMX
    if (is_tiled(x.kind)) return multiply_by_tiles(weight, x, split, begin, end, to);
#endif
    switch (weight.format) {
        case SL_BF16: return multiply_format<SL_BF16>(weight, x, split, begin, end, to);
        case SL_W4_MIN: return multiply_format<SL_W4_MIN>(weight, x, split, begin, end, to);
        case SL_W8: return multiply_format<SL_W8>(weight, x, split, begin, end, to);
        default: return multiply_format<SL_W4>(weight, x, split, begin, end, to);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
