// The matrix product of bfloat16 by matrix instructions: pairs of tiles outermost, pairs of panels inside. Sums stay in
// tile registers over all inputs.
#pragma once
#include "columns.h"
#include "product_amx.h"

namespace shardline {
namespace SL_TARGET {

constexpr int FETCHING_PAIRS = 2;  // of panels, that share the prefetch of the next tiles

// The part of each block that a pair of panels prefetches: none but for the first few.
static void share_tile_fetch(TiledProduct &p, int pair, int num_pairs) {
    constexpr int LINES = num_lines(SL_BF16);
    const int sharing = num_pairs < FETCHING_PAIRS ? num_pairs : FETCHING_PAIRS;
    p.first_line = pair < sharing ? LINES * pair / sharing : 0;
    p.last_line = pair < sharing ? LINES * (pair + 1) / sharing : 0;
}

// One pair of tiles, or a last one, on all panels. p has the tiles' part.
static void multiply_panels(TiledProduct p, const sl_panels &x, const PanelSplit &split, int tiles, float *out) {
    const int64_t row_bytes = panel_row_bytes(x.kind, x.num_inputs);
    for (int panel = 0; panel < split.num_panels; panel += PANELS_AT_ONCE) {
        const int panels = split.num_panels - panel < PANELS_AT_ONCE ? split.num_panels - panel : PANELS_AT_ONCE;
        for (int i = 0; i < panels; i++) {
            const int start = split.start(panel + i);
            p.rows[i] = split.size(panel + i);
            p.panels[i] = static_cast<const uint8_t *>(x.bytes) + row_bytes * start;
            p.out[i] = out + start * p.out_stride;
        }
        share_tile_fetch(p, panel / PANELS_AT_ONCE, (int)ceil_div(split.num_panels, PANELS_AT_ONCE));
        tiled_product(p, panels, tiles);
    }
}

// Writes whole tiles, columns beyond num_outputs as well.
static void multiply_by_tiles(const sl_weight &weight, const sl_panels &x, const PanelSplit &split, int begin, int end,
                              const Columns &to) {
    const TileShapes shapes;
    TiledProduct p;
    p.tile_stride = tile_bytes(SL_BF16, weight.num_inputs);
    p.num_blocks = (int)ceil_div(weight.num_inputs, GROUP);
    p.out_stride = to.stride;
    p.ahead = TILES_OF_PRODUCT * p.tile_stride;
    for (int tile = begin; tile < end; tile += TILES_OF_PRODUCT) {
        p.tiles = static_cast<const uint8_t *>(weight.tiles) + p.tile_stride * tile;
        const int tiles = end - tile < TILES_OF_PRODUCT ? end - tile : TILES_OF_PRODUCT;
        multiply_panels(p, x, split, tiles, to.out + (tile - to.first_tile) * TILE);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
