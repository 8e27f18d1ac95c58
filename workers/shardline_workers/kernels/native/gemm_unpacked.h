// The matrix product of int8 and 4-bit weights with many rows: pairs of tiles outermost, parts of the inputs inside, then
// panels. A part's weights are unpacked by its first panel. Sums go on, from part to part, where they stopped.
#pragma once
#include "columns.h"
#include "unpacked_avx512.h"

namespace shardline {
namespace SL_TARGET {

constexpr int UNPACKING_PANELS = 3;  // from so many on it pays

// Outputs beyond num_outputs go through a buffer.
template <int FORMAT, bool UNPACKS>
static void run_unpacked(UnpackedProduct p, int columns) {
    if (columns >= UNPACKED_TILES * TILE) return unpacked_product<FORMAT, UNPACKS>(p);
    alignas(64) float buffer[PANEL_ROWS * UNPACKED_TILES * TILE];
    float *out = p.out;
    const ptrdiff_t stride = p.out_stride;
    p.out = buffer;
    p.out_stride = UNPACKED_TILES * TILE;
    const size_t bytes = sizeof(float) * (size_t)columns;
    for (int m = 0; p.adds && m < p.panel_rows; m++) memcpy(buffer + m * p.out_stride, out + m * stride, bytes);
    unpacked_product<FORMAT, UNPACKS>(p);
    for (int m = 0; m < p.panel_rows; m++) memcpy(out + m * stride, buffer + m * p.out_stride, bytes);
}

// One part of a pair of tiles on all panels. p has the part's weights.
template <int FORMAT>
static void multiply_part(UnpackedProduct p, const sl_panels &x, const PanelSplit &split, int first_block, float *out,
                          int columns) {
    // As many panels as there are lines share the prefetch: it is to disturb none of them.
    constexpr int LINES = num_lines(FORMAT);
    const int sharing = split.num_panels < LINES ? split.num_panels : LINES;
    const int64_t row_bytes = panel_row_bytes(x.kind, x.num_inputs), skipped = panel_group_bytes(x.kind) * first_block;
    for (int panel = 0; panel < split.num_panels; panel++) {
        const int start = split.start(panel);
        p.panel_rows = split.size(panel);
        p.panel = static_cast<const uint8_t *>(x.bytes) + row_bytes * start + skipped * p.panel_rows;
        p.out = out + start * p.out_stride;
        p.first_line = panel < sharing ? LINES * panel / sharing : 0;
        p.last_line = panel < sharing ? LINES * (panel + 1) / sharing : 0;
        if (panel == 0) run_unpacked<FORMAT, true>(p, columns);
        else run_unpacked<FORMAT, false>(p, columns);
    }
}

// All pairs of tiles begin … end - 1, where there are panels enough. Gives the first tile that is left.
template <int FORMAT>
static int multiply_unpacked(const sl_weight &weight, const sl_panels &x, const PanelSplit &split, int begin, int end,
                             const Columns &to) {
    if (split.num_panels < UNPACKING_PANELS) return begin;
    const int num_blocks = (int)ceil_div(weight.num_inputs, GROUP);
    Unpacked weights;
    UnpackedProduct p{};
    p.weights = &weights;
    p.tile_stride = tile_bytes(FORMAT, weight.num_inputs);
    p.out_stride = to.stride;
    int tile = begin;
    for (; tile + UNPACKED_TILES <= end; tile += UNPACKED_TILES) {
        const uint8_t *tiles = static_cast<const uint8_t *>(weight.tiles) + p.tile_stride * tile;
        for (int block = 0; block < num_blocks; block += UNPACKED_BLOCKS) {
            p.num_blocks = num_blocks - block < UNPACKED_BLOCKS ? num_blocks - block : UNPACKED_BLOCKS;
            p.tiles = tiles + block_bytes(FORMAT) * block;
            p.adds = block > 0;
            p.next = p.tiles + block_bytes(FORMAT) * p.num_blocks;
            if (block + p.num_blocks == num_blocks) p.next = tiles + UNPACKED_TILES * p.tile_stride;
            multiply_part<FORMAT>(p, x, split, block, to.out + (tile - to.first_tile) * TILE,
                                  to.num_outputs - tile * TILE);
        }
    }
    return tile;
}

}  // namespace SL_TARGET
}  // namespace shardline
