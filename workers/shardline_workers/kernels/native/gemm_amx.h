// The matrix product by matrix instructions, for rows in panels of up to 16. A stretch of inputs is outermost (its panels
// stay in L2), tiles of weights inside, panels innermost; sums wait in `out` between stretches.
#pragma once
#include "columns.h"
#include "product_amx.h"
#include "product_amx_bf16.h"

namespace shardline {
namespace SL_TARGET {

constexpr int BLOCKS_AT_ONCE = 32;        // of a stretch: its unpacked weights are 16 KB, a panel of it 24 KB
constexpr int TILED_FETCHING_PANELS = 2;  // that share the prefetch of the next tile
constexpr int TILES_AHEAD = 2;            // how far

static TileShapes::Shapes int8_shapes() {
    TileShapes::Shapes shapes;
    for (int i = 0; i < 8; i++) {
        shapes.rows[i] = i >= 4 ? GROUP / 4 : TILE;            // 4, 5: weights
        shapes.row_bytes[i] = i >= 2 && i < 4 ? GROUP : LINE;  // 2, 3: activations
    }
    return shapes;
}

// The part of each block that a panel prefetches: none but for the first few.
template <int FORMAT, class AnyProduct>
static void share_tiled_fetch(AnyProduct &p, int panel, int num_panels) {
    constexpr int LINES = num_lines(FORMAT);
    const int sharing = num_panels < TILED_FETCHING_PANELS ? num_panels : TILED_FETCHING_PANELS;
    p.first_line = panel < sharing ? LINES * panel / sharing : 0;
    p.last_line = panel < sharing ? LINES * (panel + 1) / sharing : 0;
}

// One tile's stretch, on all panels. p has the tile's part.
template <int FORMAT>
static void multiply_panels(TiledProduct p, const sl_panels &x, const PanelSplit &split, int first_block) {
    float *const out = p.out;
    for (int panel = 0; panel < split.num_panels; panel++) {
        const int start = split.start(panel);
        p.panel_rows = split.size(panel);
        p.panel = static_cast<const uint8_t *>(x.bytes) + panel_row_bytes(x.kind, x.num_inputs) * start +
                  panel_group_bytes(x.kind) * p.panel_rows * first_block;
        p.out = out + start * p.out_stride;
        share_tiled_fetch<FORMAT>(p, panel, split.num_panels);
        tiled_product<FORMAT>(p);
    }
}

template <int FORMAT>
static void multiply_tiled(const sl_weight &weight, const sl_panels &x, int num_rows, int begin, int end,
                           const Columns &to) {
    const TileShapes shapes(int8_shapes());
    const PanelSplit split(x.kind, num_rows);
    const ptrdiff_t tile_stride = tile_bytes(FORMAT, weight.num_inputs);
    const int num_blocks = (int)ceil_div(weight.num_inputs, GROUP);
    alignas(64) uint8_t unpacked[BLOCKS_AT_ONCE * QUANT_BYTES];
    TiledProduct p;
    p.ahead = TILES_AHEAD * tile_stride;
    p.out_stride = to.stride;
    for (int block = 0; block < num_blocks; block += BLOCKS_AT_ONCE) {
        p.num_blocks = num_blocks - block < BLOCKS_AT_ONCE ? num_blocks - block : BLOCKS_AT_ONCE;
        p.adds = block > 0;
        for (int tile = begin; tile < end; tile++) {
            p.blocks = static_cast<const uint8_t *>(weight.tiles) + tile_stride * tile + block_bytes(FORMAT) * block;
            p.quants = FORMAT == SL_W8 ? p.blocks : unpacked;
            if constexpr (FORMAT != SL_W8) unpack_blocks<FORMAT>(p.blocks, p.num_blocks, unpacked);
            p.out = to.out + (tile - to.first_tile) * TILE;
            multiply_panels<FORMAT>(p, x, split, block);
        }
    }
}

// bfloat16: sums stay in tile registers over all inputs, two panels × two tiles.
static void multiply_tiled_bf16(const sl_weight &weight, const sl_panels &x, int num_rows, int begin, int end,
                                const Columns &to) {
    const TileShapes shapes(bf16_shapes());
    const PanelSplit split(x.kind, num_rows);
    const int64_t row_bytes = panel_row_bytes(x.kind, x.num_inputs);
    Bf16Product p;
    p.tile_stride = tile_bytes(SL_BF16, weight.num_inputs);
    p.num_blocks = (int)ceil_div(weight.num_inputs, GROUP);
    p.out_stride = to.stride;
    p.ahead = BF16_TILES * p.tile_stride;
    for (int tile = begin; tile < end; tile += BF16_TILES) {
        const int tiles = end - tile < BF16_TILES ? end - tile : BF16_TILES;
        p.tiles = static_cast<const uint8_t *>(weight.tiles) + p.tile_stride * tile;
        for (int panel = 0; panel < split.num_panels; panel += BF16_PANELS) {
            const int panels = split.num_panels - panel < BF16_PANELS ? split.num_panels - panel : BF16_PANELS;
            for (int i = 0; i < panels; i++) {
                const int start = split.start(panel + i);
                p.rows[i] = split.size(panel + i);
                p.panels[i] = static_cast<const uint8_t *>(x.bytes) + row_bytes * start;
                p.out[i] = to.out + start * to.stride + (tile - to.first_tile) * TILE;
            }
            share_tiled_fetch<SL_BF16>(p, panel / BF16_PANELS, (int)ceil_div(split.num_panels, BF16_PANELS));
            bf16_tiles(p, panels, tiles);
        }
    }
}

static void multiply_by_tiles(const sl_weight &weight, const sl_panels &x, int num_rows, int begin, int end,
                              const Columns &to) {
    switch (weight.format) {
        case SL_BF16: return multiply_tiled_bf16(weight, x, num_rows, begin, end, to);
        case SL_W4_MIN: return multiply_tiled<SL_W4_MIN>(weight, x, num_rows, begin, end, to);
        case SL_W8: return multiply_tiled<SL_W8>(weight, x, num_rows, begin, end, to);
        default: return multiply_tiled<SL_W4>(weight, x, num_rows, begin, end, to);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
