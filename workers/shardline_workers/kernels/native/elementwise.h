// Operations on single rows: embedding, norm, rotation, gated activation, gather. Rows are spread over threads.
#pragma once
#include <cmath>

#include "activation.h"
#include "groups.h"
#include "quantise.h"
#include "work.h"

namespace shardline {
namespace SL_TARGET {

// ---- embedding ----

static void embedding(const sl_op &op, Work &work) {
    const sl_embedding &e = op.embedding;
    const int num_rows = work.count(op.rows), width = e.table.num_inputs;
    for (int row = work.begin(num_rows); row < work.end(num_rows); row++) {
        const int64_t id = work.step.token_ids[row] - e.first_id;
        float *out = e.out + row * e.out_stride;
        if (id < 0 || id >= e.table.num_outputs) {
            memset(out, 0, sizeof(float) * (size_t)width);
            continue;
        }
        const uint8_t *block = static_cast<const uint8_t *>(e.table.tiles) +
                               id / TILE * tile_bytes(e.table.format, width);
        for (int i = 0; i < width; i++) {
            if (i && i % GROUP == 0) block += block_bytes(e.table.format);
            out[i] = e.scale * weight_at(e.table.format, block, (int)(id % TILE), i % GROUP);
        }
    }
}

// ---- norm ----

// Sum of squares in sixteen partial sums; the last lanes of a row that is no multiple of 16 add nothing.
static inline F load_some(const float *p, int64_t count) {
    if (count >= TILE) return load(p);
    alignas(64) float filled[TILE] = {};
    memcpy(filled, p, sizeof(float) * (size_t)count);
    return load(filled);
}
static inline void store_some(float *p, F a, int64_t count) {
    if (count >= TILE) return store(p, a);
    alignas(64) float filled[TILE];
    store(filled, a);
    memcpy(p, filled, sizeof(float) * (size_t)count);
}

static inline float inverse_rms(F squares, int width, float epsilon) {
    return 1.f / std::sqrt(reduce_add(squares) / (float)width + epsilon);
}

// What is to be added to a row: nothing, or delta, which is multiplied by `inverse` and delta_weight where there is one.
struct Delta {
    const float *row;
    float inverse;
};

static Delta measured_delta(const sl_norm &n, int64_t source) {
    if (!n.delta) return {nullptr, 1};
    const float *row = n.delta + source * n.width;
    if (!n.delta_weight) return {row, 1};
    F squares = set(0);
    for (int i = 0; i < n.width; i += TILE) {
        const F v = load_some(row + i, n.width - i);
        squares = fma(v, v, squares);
    }
    return {row, inverse_rms(squares, n.width, n.epsilon)};
}

static inline F summed(const sl_norm &n, const float *x, const Delta &delta, int i) {
    const F v = load_some(x + i, n.width - i);
    if (!delta.row) return v;
    F d = load_some(delta.row + i, n.width - i);
    if (n.delta_weight) d = mul(mul(d, set(delta.inverse)), load_some(n.delta_weight + i, n.width - i));
    return add(v, d);
}

// sum = x + delta (to `sum`, where given); gives 1 / rms.
static float add_and_measure(const sl_norm &n, const float *x, const Delta &delta, float *sum) {
    F squares = set(0);
    for (int i = 0; i < n.width; i += TILE) {
        const F v = summed(n, x, delta, i);
        if (sum) store_some(sum + i, v, n.width - i);
        squares = fma(v, v, squares);
    }
    return inverse_rms(squares, n.width, n.epsilon);
}

static inline F normed(const sl_norm &n, const float *x, const Delta &delta, int i, float inverse) {
    if (i >= n.width) return set(0);
    return mul(mul(summed(n, x, delta, i), set(inverse)), load_some(n.weight + i, n.width - i));
}

static void norm_row(const sl_norm &n, const PanelSplit &split, int row, int64_t source, bool updates) {
    float *x = n.residual + source * n.width;
    Delta delta = measured_delta(n, source);
    const float inverse = add_and_measure(n, x, delta, updates && delta.row ? x : nullptr);
    if (updates) delta.row = nullptr;  // x has it now
    if (!n.out && !n.panels.bytes) return;
    PanelPlace place{};
    if (n.panels.bytes) place = panel_place(n.panels, split, row);
    float *out = n.out ? n.out + row * n.out_stride : nullptr;
    for (int i = 0; i < n.width; i += GROUP) {
        const F a = normed(n, x, delta, i, inverse), b = normed(n, x, delta, i + TILE, inverse);
        if (n.panels.bytes) put_group(n.panels, place, i / GROUP, a, b);
        if (out) store_some(out + i, a, n.width - i);
        if (out && i + TILE < n.width) store_some(out + i + TILE, b, n.width - i - TILE);
    }
}

static void norm(const sl_op &op, Work &work) {
    const int num_rows = work.count(op.rows);
    const PanelSplit split(op.norm.panels.kind, num_rows);
    const bool gathers = op.rows == SL_SAMPLED;
    for (int row = work.begin(num_rows); row < work.end(num_rows); row++)
        norm_row(op.norm, split, row, gathers ? work.step.sampled_rows[row] : row, !gathers);
}

// ---- panels of rows, gather ----

static void quantise_rows(const sl_op &op, Work &work) {
    const int num_rows = work.count(op.rows);
    const PanelSplit split(op.quantise.panels.kind, num_rows);
    for (int row = work.begin(num_rows); row < work.end(num_rows); row++)
        put_row(op.quantise.panels, split, row, op.quantise.x + row * op.quantise.x_stride);
}

static void gather_sampled(const sl_op &op, Work &work) {
    const sl_gather &g = op.gather;
    const int num_rows = work.count(SL_SAMPLED);
    for (int row = work.begin(num_rows); row < work.end(num_rows); row++)
        memcpy(g.out + row * g.width, g.x + work.step.sampled_rows[row] * g.width, sizeof(float) * (size_t)g.width);
}

// ---- soft cap ----

// (e^2y - 1) / (e^2y + 1) is tanh(y): to 1e-7 of the cap.
static inline F soft_capped(F x, float cap) {
    const F y = mul(x, set(2 * LOG2_E / cap)), e = exp2(select(less(set(126.f), y), set(126.f), y));
    const F capped = mul(div(sub(e, set(1)), add(e, set(1))), set(cap));
    return add(capped, sub(x, x));  // 0, or NaN where x is infinite
}

// A row is as wide as a vocabulary, and there may be only one: columns are spread over threads.
static void soft_cap(const sl_op &op, Work &work) {
    const sl_soft_cap &s = op.soft_cap;
    const int end = work.end((int)s.width, TILE);
    for (int row = 0; row < work.count(op.rows); row++) {
        float *x = s.x + row * s.x_stride;
        for (int i = work.begin((int)s.width, TILE); i < end; i += TILE)
            store_some(x + i, soft_capped(load_some(x + i, end - i), s.cap), end - i);
    }
}

// ---- gated activation of plain rows ----

static void gated_activation(const sl_op &op, Work &work) {
    const sl_gated_activation &g = op.gated_activation;
    const int num_rows = work.count(op.rows);
    const PanelSplit split(g.panels.kind, num_rows);
    for (int row = work.begin(num_rows); row < work.end(num_rows); row++) {
        const float *gate = g.gate_up + row * 2 * g.size, *up = gate + g.size;
        PanelPlace place{};
        if (g.panels.bytes) place = panel_place(g.panels, split, row);
        for (int64_t i = 0; i < g.size; i += GROUP) {
            F v[2];
            for (int h = 0; h < 2; h++) {
                const int64_t at = i + h * TILE, left = g.size - at;
                v[h] = left > 0 ? gated(g.activation, load_some(gate + at, left), load_some(up + at, left)) : set(0);
                if (g.out && left > 0) store_some(g.out + row * g.size + at, v[h], left);
            }
            if (g.panels.bytes) put_group(g.panels, place, i / GROUP, v[0], v[1]);
        }
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
