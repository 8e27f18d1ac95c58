// A rank's experts on the rows that take them. Rows lie by expert, so that each expert's weights are read once and its
// products are those of a linear layer; what they give is added up in ascending order of experts, tile by tile, so that
// a row's sums have one order on any number of threads.
#pragma once
#include "elementwise.h"
#include "expert_cost.h"
#include "linear.h"

namespace shardline {
namespace SL_TARGET {

// ---- rows by expert ----

static int expert_of(const sl_deal_rows &d, int32_t id) {
    const int number = id >= 0 && id < d.num_ids ? d.id_to_number[id] : -1;
    return number < d.dealt.num_experts ? number : -1;
}

static void count_rows(const sl_deal_rows &d, int64_t num_choices) {
    const sl_dealt_rows &dealt = d.dealt;
    memset(dealt.starts, 0, sizeof(int32_t) * (size_t)(dealt.num_experts + 1));
    for (int64_t i = 0; i < num_choices; i++) {
        const int expert = expert_of(d, d.routes.expert_ids[i]);
        if (expert >= 0) dealt.starts[expert + 1]++;
    }
    int num_active = 0;
    for (int e = 0; e < dealt.num_experts; e++) {
        if (dealt.starts[e + 1]) dealt.active[num_active++] = e;
        dealt.starts[e + 1] += dealt.starts[e];
    }
    *dealt.num_active = num_active;
}

static void sort_rows(const sl_deal_rows &d, int num_rows) {
    const sl_dealt_rows &dealt = d.dealt;
    const int num_active = d.routes.num_active;
    count_rows(d, (int64_t)num_rows * num_active);
    int32_t next[SL_EXPERTS_MAX];
    memcpy(next, dealt.starts, sizeof(int32_t) * (size_t)dealt.num_experts);
    for (int64_t i = 0; i < (int64_t)num_rows * num_active; i++) {
        const int expert = expert_of(d, d.routes.expert_ids[i]);
        const int32_t place = expert < 0 ? -1 : next[expert]++;
        dealt.places[i] = place;
        if (expert < 0) continue;
        dealt.rows[place] = (int32_t)(i / num_active);
        dealt.weights[place] = d.routes.weights[i];
    }
}

// Panels of one expert's rows.
static sl_panels panels_of_expert(sl_panels all, const sl_dealt_rows &dealt, int expert) {
    all.bytes = static_cast<uint8_t *>(all.bytes) + panel_row_bytes(all.kind, all.num_inputs) * dealt.starts[expert];
    return all;
}

static sl_panels panel_of_row(const sl_deal_rows &d, int64_t row) {
    sl_panels panel = d.dealt.panels;
    panel.bytes = static_cast<uint8_t *>(d.row_panels) + panel_row_bytes(panel.kind, panel.num_inputs) * row;
    return panel;
}

// Panels of an expert that begin at places from … to - 1 of all.
static void join_panels(const sl_deal_rows &d, int expert, int from, int to) {
    const sl_panels panels = panels_of_expert(d.dealt.panels, d.dealt, expert);
    const PanelSplit split(panels.kind, rows_of_expert(d.dealt, expert));
    const int64_t row_bytes = panel_row_bytes(panels.kind, panels.num_inputs);
    for (int panel = 0; panel < split.num_panels; panel++) {
        const int first = split.start(panel), place = d.dealt.starts[expert] + first;
        if (place < from || place >= to) continue;
        const uint8_t *rows[TILE];
        for (int i = 0; i < split.size(panel); i++)
            rows[i] = static_cast<const uint8_t *>(panel_of_row(d, d.dealt.rows[place + i]).bytes);
        join_rows(panels.kind, rows, split.size(panel), ceil_div(panels.num_inputs, GROUP),
                  static_cast<uint8_t *>(panels.bytes) + row_bytes * first);
    }
}

// The tables in the first phase, and each row quantised by itself, once for all experts that it takes; in the second they
// are put together.
static void deal_rows(const sl_op &op, Work &work) {
    const sl_deal_rows &d = op.deal_rows;
    const int num_rows = num_routed_rows(d.routes);
    if (work.phase == 0) {
        if (work.share == 0) sort_rows(d, num_rows);
        for (int row = work.begin(num_rows); row < work.end(num_rows); row++)
            put_row(panel_of_row(d, row), PanelSplit(d.dealt.panels.kind, 1), 0, d.x + row * d.x_stride);
        return;
    }
    const int places = num_places(d.dealt), from = work.begin(places), to = work.end(places);
    for (int i = 0; i < *d.dealt.num_active; i++) {
        const int expert = d.dealt.active[i];
        if (d.dealt.starts[expert] < to && d.dealt.starts[expert + 1] > from) join_panels(d, expert, from, to);
    }
}

// ---- products ----

// How many units of `unit_ns` begin before a time.
static int units_before(int64_t ns, int64_t unit_ns, int units) {
    const int64_t count = ns <= 0 ? 0 : ceil_div(ns, unit_ns);
    return (int)(count < units ? count : units);
}

static void gated_units(const sl_experts &e, int expert, int begin, int end, Work &work) {
    const sl_weight &weight = e.experts[expert].gate_up;
    const int tiles = (int)num_tiles(weight.num_outputs), last = end * GATED_TILES < tiles ? end * GATED_TILES : tiles;
    const sl_gated_linear gated{panels_of_expert(e.dealt.panels, e.dealt, expert), weight,
                                panels_of_expert(e.activated, e.dealt, expert), e.activation, 0};
    gated_tiles(gated, rows_of_expert(e.dealt, expert), begin * GATED_TILES, last, work.scratch.rows);
}

// All units of all experts stand in one line, as long as the time that they take; a share is a piece of it.
static void gated_products(const sl_experts &e, Work &work) {
    const int64_t total = gated_ns(e), from = total * work.share / work.num_shares,
                  to = total * (work.share + 1) / work.num_shares;
    const int units = num_gated_units(e);
    int64_t start = 0;
    for (int i = 0; i < *e.dealt.num_active && start < to; i++) {
        const int expert = e.dealt.active[i];
        const int64_t unit_ns = gated_unit_ns(e, expert);
        const int begin = units_before(from - start, unit_ns, units), end = units_before(to - start, unit_ns, units);
        if (begin < end) gated_units(e, expert, begin, end, work);
        start += units * unit_ns;
    }
}

// delta += weight · columns of some places, whose first one is `place`.
static void add_weighted(const sl_experts &e, int64_t place, int count, const float *columns, int tile, int width) {
    for (int i = 0; i < count; i++) {
        float *to = e.delta + e.dealt.rows[place + i] * e.delta_stride + (int64_t)tile * TILE;
        const float *from = columns + (int64_t)i * COLUMNS_AT_ONCE;
        const F weight = set(e.dealt.weights[place + i]);
        for (int c = 0; c < width; c += TILE)
            store_some(to + c, fma(weight, load(from + c), load_some(to + c, width - c)), width - c);
    }
}

static void add_expert(const sl_experts &e, int expert, int begin, int end, float *columns) {
    const sl_weight &weight = e.experts[expert].down;
    const sl_panels x = panels_of_expert(e.activated, e.dealt, expert);
    const PanelSplit split(x.kind, rows_of_expert(e.dealt, expert));
    for (int panel = 0; panel < split.num_panels; panel += PANELS_OF_PART) {
        const Part part(x, split, panel);
        for (int tile = begin; tile < end; tile += TILES_AT_ONCE) {
            const int last = tile + TILES_AT_ONCE < end ? tile + TILES_AT_ONCE : end;
            const int left = weight.num_outputs - tile * TILE, width = (last - tile) * TILE;
            // Whole tiles: there is room for what lies beyond the outputs.
            multiply(weight, part.x, part.split, tile, last, {columns, COLUMNS_AT_ONCE, tile, last * TILE});
            add_weighted(e, e.dealt.starts[expert] + part.first_row, part.num_rows, columns, tile,
                         left < width ? left : width);
        }
    }
}

// A share has some columns of all rows.
static void down_products(const sl_experts &e, Work &work) {
    const int outputs = e.experts[0].down.num_outputs, tiles = (int)num_tiles(outputs);
    const int begin = work.begin(tiles, DOWN_TILES), end = work.end(tiles, DOWN_TILES);
    const int last_column = end * TILE < outputs ? end * TILE : outputs;
    for (int row = 0; row < num_routed_rows(e.routes) && begin < end; row++)
        memset(e.delta + row * e.delta_stride + begin * TILE, 0, sizeof(float) * (size_t)(last_column - begin * TILE));
    for (int i = 0; i < *e.dealt.num_active; i++) add_expert(e, e.dealt.active[i], begin, end, work.scratch.rows);
}

// Gate and up in the first phase, down in the second.
static void experts(const sl_op &op, Work &work) {
    if (work.phase == 0) gated_products(op.experts, work);
    else down_products(op.experts, work);
}

}  // namespace SL_TARGET
}  // namespace shardline
