// From float32 rows to panels: 32 values at a time, so that they can be taken while they are still in L1.
#pragma once
#include "half.h"
#include "layout.h"

namespace shardline {
namespace SL_TARGET {

// int8 of 32 values: scale = max|x| / 127, q = round(x / scale). NaN and infinities make the scale such that every
// product with the group is NaN: nothing broken passes for a number.
static inline void put_int8(F a, F b, uint8_t *group, int mr, int row) {
    const I magnitude = set_int(0x7fffffff);
    // Compared as integers, as NaN is then the largest of all.
    const int32_t largest_bits = reduce_max(max(bit_and(bits(a), magnitude), bit_and(bits(b), magnitude)));
    const float largest = bits_float((uint32_t)largest_bits), inverse = largest > 0 ? 127.f / largest : 0.f;
    const I qa = to_int(mul(a, set(inverse))), qb = to_int(mul(b, set(inverse)));
    store_bytes(group + GROUP * row, qa);
    store_bytes(group + GROUP * row + TILE, qb);
    int32_t *out = (int32_t *)(group + GROUP * mr) + row;
    const int32_t sum = reduce_add(add(qa, qb));
    const float scale = largest / 127.f, scaled_sum = scale * (float)sum;
    memcpy(out, &scale, 4);
    memcpy(out + mr, &scaled_sum, 4);
    out[2 * mr] = (int32_t)(-8u * (uint32_t)sum);
    out[3 * mr] = (int32_t)(-128u * (uint32_t)sum);
}

static inline void put_pairs(F a, F b, uint8_t *group, int row) {
    store_bf16(group + 2 * GROUP * row, a);
    store_bf16(group + 2 * GROUP * row + 2 * TILE, b);
}

// Group number `group` of a row.
static inline void put_group(const sl_panels &panels, const PanelPlace &place, int64_t group, F a, F b) {
    uint8_t *bytes = place.panel + group * panel_group_bytes(panels.kind) * place.rows;
    if (panels.kind == SL_INT8) put_int8(a, b, bytes, place.rows, place.row);
    else put_pairs(a, b, bytes, place.row);
}

// The same of `count` values, from 1 to 32; those beyond are zero.
static inline void put_some(const sl_panels &panels, const PanelPlace &place, int64_t group, const float *x,
                            int64_t count) {
    if (count >= GROUP) return put_group(panels, place, group, load(x), load(x + TILE));
    alignas(64) float filled[GROUP] = {};
    memcpy(filled, x, sizeof(float) * (size_t)count);
    put_group(panels, place, group, load(filled), load(filled + TILE));
}

// A whole row.
static inline void put_row(const sl_panels &panels, const PanelSplit &split, int row, const float *x) {
    const PanelPlace place = panel_place(panels, split, row);
    for (int64_t i = 0; i < panels.num_inputs; i += GROUP)
        put_some(panels, place, i / GROUP, x + i, panels.num_inputs - i);
}

// A panel of rows that lie one by one in panels of their own.
static inline void join_rows(int kind, const uint8_t *const *rows, int count, int64_t num_groups, uint8_t *panel) {
    const int64_t group_bytes = panel_group_bytes(kind), row_bytes = kind == SL_INT8 ? GROUP : 2 * GROUP;
    for (int64_t group = 0; group < num_groups; group++, panel += group_bytes * count) {
        for (int row = 0; row < count; row++) {
            const uint8_t *from = rows[row] + group_bytes * group;
            memcpy(panel + row_bytes * row, from, (size_t)row_bytes);
            for (int number = 0; kind == SL_INT8 && number < 4; number++)  // scale and sums
                memcpy(panel + GROUP * count + 4 * (number * count + row), from + GROUP + 4 * number, 4);
        }
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
