// Linear layers: their tiles are spread over threads.
#pragma once
#include "activation.h"
#include "gemm.h"
#include "quantise.h"
#include "work.h"

namespace shardline {
namespace SL_TARGET {

// Columns that are worked on in scratch memory while they are in L1; of a gated layer two tiles of gate, two of up.
constexpr int TILES_AT_ONCE = 4;
constexpr int COLUMNS_AT_ONCE = TILES_AT_ONCE * TILE;

// Matrix instructions write whole tiles, of 16 rows on as many pages: they go to scratch memory, and from there in longer
// pieces to their rows.
static void linear_by_tiles(const sl_linear &l, int num_rows, int begin, int end, float *rows) {
    for (int tile = begin; tile < end; tile += TILES_AT_ONCE) {
        const int tiles = end - tile < TILES_AT_ONCE ? end - tile : TILES_AT_ONCE,
                  left = l.weight.num_outputs - tile * TILE;
        const size_t columns = (size_t)(left < tiles * TILE ? left : tiles * TILE);
        multiply(l.weight, l.x, num_rows, tile, tile + tiles, {rows, COLUMNS_AT_ONCE, tile, l.weight.num_outputs});
        for (int row = 0; row < num_rows; row++)
            memcpy(l.out + row * l.out_stride + tile * TILE, rows + (int64_t)row * COLUMNS_AT_ONCE,
                   sizeof(float) * columns);
    }
}

static void linear(const sl_op &op, Work &work) {
    const sl_linear &l = op.linear;
    const int num_rows = work.count(op.rows), tiles = (int)num_tiles(l.weight.num_outputs),
              unit = num_rows == 1 ? 1 : 2;
    const int begin = work.begin(tiles, unit), end = work.end(tiles, unit);
    if (is_tiled(l.x.kind)) return linear_by_tiles(l, num_rows, begin, end, work.scratch.rows);
    multiply(l.weight, l.x, num_rows, begin, end,
             {l.out + (int64_t)begin * TILE, l.out_stride, begin, l.weight.num_outputs});
}

static void activate(const sl_gated_linear &g, const PanelSplit &split, int num_rows, const float *rows, int64_t group,
                     int tiles) {
    for (int row = 0; row < num_rows; row++) {
        const float *v = rows + (int64_t)row * COLUMNS_AT_ONCE;
        const F a = gated(g.activation, load(v), load(v + TILE));
        const F b = tiles == TILES_AT_ONCE ? gated(g.activation, load(v + 2 * TILE), load(v + 3 * TILE)) : set(0);
        put_group(g.panels, panel_place(g.panels, split, row), group, a, b);
    }
}

static void gated_linear(const sl_op &op, Work &work) {
    const sl_gated_linear &g = op.gated_linear;
    const int num_rows = work.count(op.rows), tiles = (int)num_tiles(g.weight.num_outputs);
    const PanelSplit split(g.panels.kind, num_rows);
    float *rows = work.scratch.rows;
    for (int tile = work.begin(tiles, TILES_AT_ONCE); tile < work.end(tiles, TILES_AT_ONCE); tile += TILES_AT_ONCE) {
        const int end = tile + TILES_AT_ONCE < tiles ? tile + TILES_AT_ONCE : tiles;
        multiply(g.weight, g.x, num_rows, tile, end, {rows, COLUMNS_AT_ONCE, tile, g.weight.num_outputs});
        activate(g, split, num_rows, rows, tile / TILES_AT_ONCE, end - tile);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
