// Linear layers: their tiles are spread over threads.
#pragma once
#include "exponential.h"
#include "gemm.h"
#include "quantise.h"
#include "work.h"

namespace shardline {
namespace SL_TARGET {

static void linear(const sl_op &op, Work &work) {
    const sl_linear &l = op.linear;
    const int num_rows = work.count(op.rows), tiles = (int)num_tiles(l.weight.num_outputs),
              unit = num_rows == 1 ? 1 : 2;
    const int begin = work.begin(tiles, unit), end = work.end(tiles, unit);
    multiply(l.weight, l.x, num_rows, begin, end,
             {l.out + (int64_t)begin * TILE, l.out_stride, begin, l.weight.num_outputs});
}

// 32 activated columns: two tiles of gate, two of up. They are activated and quantised while they are in L1.
constexpr int GATED_TILES = 4;
constexpr int GATED_COLUMNS = GATED_TILES * TILE;

static void activate(const sl_gated_linear &g, const PanelSplit &split, int num_rows, const float *rows, int64_t group,
                     int tiles) {
    for (int row = 0; row < num_rows; row++) {
        const float *v = rows + (int64_t)row * GATED_COLUMNS;
        const F a = mul(silu(load(v)), load(v + TILE));
        const F b = tiles == GATED_TILES ? mul(silu(load(v + 2 * TILE)), load(v + 3 * TILE)) : set(0);
        put_group(g.panels, panel_place(g.panels, split, row), group, a, b);
    }
}

static void gated_linear(const sl_op &op, Work &work) {
    const sl_gated_linear &g = op.gated_linear;
    const int num_rows = work.count(op.rows), tiles = (int)num_tiles(g.weight.num_outputs);
    const PanelSplit split(num_rows);
    float *rows = work.scratch.rows;
    for (int tile = work.begin(tiles, GATED_TILES); tile < work.end(tiles, GATED_TILES); tile += GATED_TILES) {
        const int end = tile + GATED_TILES < tiles ? tile + GATED_TILES : tiles;
        multiply(g.weight, g.x, num_rows, tile, end, {rows, GATED_COLUMNS, tile, g.weight.num_outputs});
        activate(g, split, num_rows, rows, tile / GATED_TILES, end - tile);
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
