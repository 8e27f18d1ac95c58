// Rows of attention times a few tiles of bfloat16: queries · keys, and weights · values. The rows are few and meet many
// tiles, so they lie ready for the multiplier: as bfloat16 where one instruction multiplies pairs, else as the float32
// numbers that these mean. Both add the odd one of two inputs first, then the even one, each product rounded once.
#pragma once
#include "product.h"

namespace shardline {
namespace SL_TARGET {

constexpr int ROWS_AT_ONCE = most_tiles(SL_BF16) > 1 ? 6 : 3;  // × tiles: sums that lie in registers

struct RowProduct {
    const uint8_t *tiles;
    ptrdiff_t tile_stride;  // bytes from one tile to the next
    int num_tiles, num_pairs;
    ptrdiff_t row_stride, out_stride;  // numbers from one row to the next
    ptrdiff_t ahead;                   // every line is prefetched, so many bytes ahead
    bool adds;                         // to what out holds
};

#ifdef __AVX512BF16__
using RowValue = uint16_t;
static inline void put_row_values(RowValue *out, F a) { store_bf16(out, a); }
static inline void put_row_values(RowValue *out, const uint16_t *bf16) { memcpy(out, bf16, TILE * sizeof *out); }
#else
using RowValue = float;
// To nearest even; of numbers that are 0, normal, or none and go on as none.
static inline void put_row_values(RowValue *out, F a) {
    const I u = bits(a), odd = bit_and(shift_right<16>(u), set_int(1));
    store(out, from_bits(bit_and(add(add(u, set_int(0x7fff)), odd), set_int((int32_t)0xffff0000))));
}
static inline void put_row_values(RowValue *out, const uint16_t *bf16) { store(out, load_bf16(bf16)); }

template <bool ODD>
static inline F half_of(I pairs) {
    return from_bits(ODD ? bit_and(pairs, set_int((int32_t)0xffff0000)) : shift_left<16>(pairs));
}
template <bool ODD, int R, int T>
static inline void add_row_halves(F (&total)[R][T], const uint8_t *w, ptrdiff_t tile_stride, const float *x,
                                  ptrdiff_t row_stride) {
    F v[T];
    SL_UNROLL
    for (int t = 0; t < T; t++) v[t] = half_of<ODD>(load_int(w + tile_stride * t));
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        const F half = set(x[m * row_stride + ODD]);
        SL_UNROLL
        for (int t = 0; t < T; t++) total[m][t] = fma(v[t], half, total[m][t]);
    }
}
#endif

template <int R, int T>
static inline void add_row_pair(F (&total)[R][T], const uint8_t *w, ptrdiff_t tile_stride, const RowValue *x,
                                ptrdiff_t row_stride) {
#ifdef __AVX512BF16__
    I v[T];
    SL_UNROLL
    for (int t = 0; t < T; t++) v[t] = load_int(w + tile_stride * t);
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        int32_t pair;
        memcpy(&pair, x + m * row_stride, sizeof pair);
        SL_UNROLL
        for (int t = 0; t < T; t++)
            total[m][t] = _mm512_dpbf16_ps(total[m][t], (__m512bh)v[t], (__m512bh)set_int(pair));
    }
#else
    add_row_halves<true>(total, w, tile_stride, x, row_stride);
    add_row_halves<false>(total, w, tile_stride, x, row_stride);
#endif
}

template <int R, int T>
static void multiply_row_tiles(const RowProduct &p, const uint8_t *w, const RowValue *x, float *out, bool fetches) {
    F total[R][T];
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < T; t++) total[m][t] = set(0);
    }
    for (int pair = 0; pair < p.num_pairs; pair++, w += LINE, x += 2) {
        SL_UNROLL
        for (int t = 0; t < T; t++)
            if (fetches) prefetch_far(w + p.tile_stride * t + p.ahead);
        add_row_pair(total, w, p.tile_stride, x, p.row_stride);
    }
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < T; t++) {
            float *to = out + m * p.out_stride + TILE * t;
            store(to, p.adds ? add(load(to), total[m][t]) : total[m][t]);
        }
    }
}

template <int T>
static void multiply_some_rows(const RowProduct &p, const uint8_t *w, const RowValue *x, float *out, int rows,
                               bool fetches) {
    switch (rows) {
        case 1: return multiply_row_tiles<1, T>(p, w, x, out, fetches);
        case 2: return multiply_row_tiles<2, T>(p, w, x, out, fetches);
        case 3: return multiply_row_tiles<3, T>(p, w, x, out, fetches);
    }
    if constexpr (ROWS_AT_ONCE > 3) {
        switch (rows) {
            case 4: return multiply_row_tiles<4, T>(p, w, x, out, fetches);
            case 5: return multiply_row_tiles<5, T>(p, w, x, out, fetches);
            default: return multiply_row_tiles<6, T>(p, w, x, out, fetches);
        }
    }
}

// out [rows, 16 · tiles] = x [rows, 2 · pairs] · tiles, or plus that.
static void multiply_rows(const RowProduct &p, const RowValue *x, float *out, int rows) {
    constexpr int MOST = most_tiles(SL_BF16);
    for (int tile = 0, n; tile < p.num_tiles; tile += n) {
        n = p.num_tiles - tile >= MOST ? MOST : 1;
        for (int row = 0; row < rows; row += ROWS_AT_ONCE) {
            const int count = rows - row < ROWS_AT_ONCE ? rows - row : ROWS_AT_ONCE;
            const uint8_t *w = p.tiles + p.tile_stride * tile;
            const RowValue *from = x + row * p.row_stride;
            float *to = out + row * p.out_stride + TILE * tile;
            if (n == MOST) multiply_some_rows<MOST>(p, w, from, to, count, row == 0);
            else if constexpr (MOST > 1) multiply_some_rows<1>(p, w, from, to, count, row == 0);
        }
    }
}

}  // namespace SL_TARGET
}  // namespace shardline
