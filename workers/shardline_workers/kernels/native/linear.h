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

// Panels that are worked on at once, on all tiles: their activations stay in L2, and a gated layer's columns near L1.
constexpr int PANELS_OF_PART = 32;

// Some panels of a layer's input.
namespace {
struct Part {
    sl_panels x;
    PanelSplit split;
    int first_row, num_rows;

    Part(const sl_panels &all, const PanelSplit &whole, int first)
        : x(all),
          split(
              whole.part(first, whole.num_panels - first < PANELS_OF_PART ? whole.num_panels - first : PANELS_OF_PART)),
          first_row(whole.start(first)),
          num_rows(split.start(split.num_panels)) {
        x.bytes = static_cast<uint8_t *>(all.bytes) + panel_row_bytes(all.kind, all.num_inputs) * first_row;
    }
};
}  // namespace

// Matrix instructions write whole tiles, of 16 rows on as many pages: they go to scratch memory, and from there in longer
// pieces to their rows.
static void linear_by_tiles(const sl_linear &l, const Part &part, int begin, int end, float *rows) {
    for (int tile = begin; tile < end; tile += TILES_AT_ONCE) {
        const int tiles = end - tile < TILES_AT_ONCE ? end - tile : TILES_AT_ONCE,
                  left = l.weight.num_outputs - tile * TILE;
        const size_t columns = (size_t)(left < tiles * TILE ? left : tiles * TILE);
        multiply(l.weight, part.x, part.split, tile, tile + tiles, {rows, COLUMNS_AT_ONCE, tile, l.weight.num_outputs});
        for (int row = 0; row < part.num_rows; row++)
            memcpy(l.out + (part.first_row + row) * l.out_stride + tile * TILE, rows + (int64_t)row * COLUMNS_AT_ONCE,
                   sizeof(float) * columns);
    }
}

static void linear(const sl_op &op, Work &work) {
    const sl_linear &l = op.linear;
    const int num_rows = work.count(op.rows), tiles = (int)num_tiles(l.weight.num_outputs),
              unit = num_rows == 1 ? 1 : 2;
    const int begin = work.begin(tiles, unit), end = work.end(tiles, unit);
    const PanelSplit split(l.x.kind, num_rows);
    for (int panel = 0; panel < split.num_panels; panel += PANELS_OF_PART) {
        const Part part(l.x, split, panel);
        float *out = l.out + part.first_row * l.out_stride + (int64_t)begin * TILE;
        if (is_tiled(l.x.kind)) linear_by_tiles(l, part, begin, end, work.scratch.rows);
        else multiply(l.weight, part.x, part.split, begin, end, {out, l.out_stride, begin, l.weight.num_outputs});
    }
}

static void activate(const sl_gated_linear &g, const PanelSplit &split, const Part &part, const float *rows,
                     int64_t group, int tiles) {
    for (int row = 0; row < part.num_rows; row++) {
        const float *v = rows + (int64_t)row * COLUMNS_AT_ONCE;
        const F a = gated(g.activation, load(v), load(v + TILE));
        const F b = tiles == TILES_AT_ONCE ? gated(g.activation, load(v + 2 * TILE), load(v + 3 * TILE)) : set(0);
        put_group(g.panels, panel_place(g.panels, split, part.first_row + row), group, a, b);
    }
}

// Tiles begin … end - 1 of gate and up on all rows; begin is a multiple of TILES_AT_ONCE.
static void gated_tiles(const sl_gated_linear &g, int num_rows, int begin, int end, float *rows) {
    const PanelSplit x_split(g.x.kind, num_rows), split(g.panels.kind, num_rows);
    for (int panel = 0; panel < x_split.num_panels; panel += PANELS_OF_PART) {
        const Part part(g.x, x_split, panel);
        for (int tile = begin; tile < end; tile += TILES_AT_ONCE) {
            const int last = tile + TILES_AT_ONCE < end ? tile + TILES_AT_ONCE : end;
            multiply(g.weight, part.x, part.split, tile, last, {rows, COLUMNS_AT_ONCE, tile, g.weight.num_outputs});
            activate(g, split, part, rows, tile / TILES_AT_ONCE, last - tile);
        }
    }
}

static void gated_linear(const sl_op &op, Work &work) {
    const sl_gated_linear &g = op.gated_linear;
    const int tiles = (int)num_tiles(g.weight.num_outputs);
    gated_tiles(g, work.count(op.rows), work.begin(tiles, TILES_AT_ONCE), work.end(tiles, TILES_AT_ONCE),
                work.scratch.rows);
}

}  // namespace SL_TARGET
}  // namespace shardline
