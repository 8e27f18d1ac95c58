// Two tiles of weights times one of many panels. The first panel unpacks them on its way for the others: four bits to a
// byte for each weight, as SL_W8 has them, and scales to float32. Unpacked anew for each panel, they cost a seventh of the
// time.
#pragma once
#include "product_avx512.h"

namespace shardline {
namespace SL_TARGET {

constexpr int UNPACKED_TILES = 2;
// Blocks at once: a part of the inputs that stays in L1 (30 KB) beside a panel's (7 KB).
constexpr int UNPACKED_BLOCKS = 24;
constexpr int UNPACKED_BYTES = 512;  // of a block, before its scales

struct Unpacked {
    alignas(64) uint8_t quants[UNPACKED_TILES][UNPACKED_BLOCKS][UNPACKED_BYTES];  // not of SL_W8
    alignas(64) float scales[UNPACKED_TILES][UNPACKED_BLOCKS][TILE];
    alignas(64) float minima[UNPACKED_TILES][UNPACKED_BLOCKS][TILE];  // of SL_W4_MIN
};

struct UnpackedProduct {
    Unpacked *weights;
    const uint8_t *tiles;   // packed: the first block of the part
    ptrdiff_t tile_stride;  // bytes from one tile to the next
    const uint8_t *panel;   // its first group of the part
    int panel_rows;
    int num_blocks;  // of the part
    bool adds;       // to what out holds: the sums of the parts before
    float *out;      // [panel_rows, 32]
    ptrdiff_t out_stride;
    // Prefetch of the part that comes next: of each block the cache lines first_line … last_line - 1.
    const uint8_t *next;
    int first_line, last_line;
};

// Weights 4j … 4j + 3 of each output.
template <int FORMAT, bool UNPACKS>
static inline I quants_of(const UnpackedProduct &p, int block, int tile, int j) {
    const uint8_t *packed = p.tiles + p.tile_stride * tile + block_bytes(FORMAT) * block;
    if (FORMAT == SL_W8) return load_int(packed + j * LINE);
    uint8_t *unpacked = p.weights->quants[tile][block] + j * LINE;
    if (!UNPACKS) return load_int(unpacked);
    const I both = load_int(packed + j / 2 * LINE);
    const I v = bit_and(j % 2 ? _mm512_srli_epi16(both, 4) : both, set_int(0x0f0f0f0f));
    store_int(unpacked, v);
    return v;
}

template <bool UNPACKS>
static inline F halves_of(float *unpacked, const uint8_t *packed) {
    if (!UNPACKS) return load(unpacked);
    const F v = load_half(packed);
    store(unpacked, v);
    return v;
}

// sums = q · x of a block, with the offset of unsigned quants.
template <int FORMAT, bool UNPACKS, int R>
static inline void sum_block(I (&sums)[R][UNPACKED_TILES], const UnpackedProduct &p, int block, const int32_t *x) {
    const int32_t *offsets = x + (FORMAT == SL_W8 ? 11 : 10) * R;
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < UNPACKED_TILES; t++) sums[m][t] = set_int(FORMAT == SL_W4_MIN ? 0 : offsets[m]);
    }
    SL_UNROLL
    for (int j = 0; j < 8; j++) {
        I v[UNPACKED_TILES];
        SL_UNROLL
        for (int t = 0; t < UNPACKED_TILES; t++) v[t] = quants_of<FORMAT, UNPACKS>(p, block, t, j);
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            SL_UNROLL
            for (int t = 0; t < UNPACKED_TILES; t++) sums[m][t] = dot(sums[m][t], v[t], set_int(x[8 * m + j]));
        }
    }
}

// total += scale_w · scale_x · sum (- minimum · scale_x · Σx). scales: of the panel's rows.
template <int FORMAT, bool UNPACKS, int R>
static inline void add_block_sums(F (&total)[R][UNPACKED_TILES], const I (&sums)[R][UNPACKED_TILES],
                                  const UnpackedProduct &p, int block, const float *scales) {
    SL_UNROLL
    for (int t = 0; t < UNPACKED_TILES; t++) {
        const uint8_t *halves = p.tiles + p.tile_stride * t + block_bytes(FORMAT) * block + quant_bytes(FORMAT);
        const F scale = halves_of<UNPACKS>(p.weights->scales[t][block], halves);
        F minimum = scale;
        if (FORMAT == SL_W4_MIN) minimum = halves_of<UNPACKS>(p.weights->minima[t][block], halves + 32);
        SL_UNROLL
        for (int m = 0; m < R; m++) {
            if (FORMAT == SL_W4_MIN) total[m][t] = fnma(minimum, set(scales[R + m]), total[m][t]);
            total[m][t] = fma(to_float(sums[m][t]), mul(scale, set(scales[m])), total[m][t]);
        }
    }
}

// The same sums, in the same order, as int8_product's. UNPACKS: of packed weights, which are unpacked on the way.
template <int FORMAT, bool UNPACKS, int R>
static void unpacked_product(const UnpackedProduct &product) {
    const UnpackedProduct p = product;
    F total[R][UNPACKED_TILES];
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < UNPACKED_TILES; t++)
            total[m][t] = p.adds ? load(p.out + m * p.out_stride + TILE * t) : set(0);
    }
    const uint8_t *a = p.panel, *next = p.next;
    for (int block = 0; block < p.num_blocks; block++) {
        for (int line = p.first_line; line < p.last_line; line++) {
            prefetch_far(next + line * LINE);
            prefetch_far(next + p.tile_stride + line * LINE);
        }
        I sums[R][UNPACKED_TILES];
        sum_block<FORMAT, UNPACKS>(sums, p, block, (const int32_t *)a);
        add_block_sums<FORMAT, UNPACKS>(total, sums, p, block, (const float *)a + 8 * R);
        next += block_bytes(FORMAT);
        a += panel_group_bytes(SL_INT8) * R;
    }
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        SL_UNROLL
        for (int t = 0; t < UNPACKED_TILES; t++) store(p.out + m * p.out_stride + TILE * t, total[m][t]);
    }
}

// Where there are three panels or more, each has four rows or more.
template <int FORMAT, bool UNPACKS>
static void unpacked_product(const UnpackedProduct &p) {
    if (p.panel_rows == 6) unpacked_product<FORMAT, UNPACKS, 6>(p);
    else if (p.panel_rows == 5) unpacked_product<FORMAT, UNPACKS, 5>(p);
    else unpacked_product<FORMAT, UNPACKS, 4>(p);
}

}  // namespace SL_TARGET
}  // namespace shardline
