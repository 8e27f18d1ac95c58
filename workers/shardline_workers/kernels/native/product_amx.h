// Panels of up to 16 rows × tiles of 16 outputs by matrix instructions.
//
// int8: one instruction for the 32 inputs of a group. Its sums are exact, and what follows is done in the order of the
// other product_*.h, so the bits are theirs. Sums go to vectors by way of memory, which cannot be forwarded from a store
// of a tile: a group's sums are taken up SUMS_LATE groups later.
#pragma once
#include "product_avx512.h"
#include "tiles_amx.h"

namespace shardline {
namespace SL_TARGET {

// Two groups late; a tile waits for its products while those before are taken up, and is stored only then.
constexpr int SUMS_LATE = 2;
constexpr int SUMS_RING = 4;
constexpr int QUANT_BYTES = 512;  // of an unpacked block

struct TiledProduct {
    const uint8_t *blocks;  // of one tile
    const uint8_t *quants;  // of the first block, [8][16 outputs][4] bytes, see quants_step()
    const uint8_t *panel;   // from the first block on
    int panel_rows;
    int num_blocks;
    bool adds;   // to what out holds
    float *out;  // [panel_rows, 16]
    ptrdiff_t out_stride;
    // Prefetch: of each block the cache lines first_line … last_line - 1, so many bytes ahead.
    ptrdiff_t ahead;
    int first_line, last_line;
};

// From one block's bytes to the next one's: 8-bit weights are bytes as they lie, 4-bit ones are unpacked to a buffer.
constexpr ptrdiff_t quants_step(int format) { return format == SL_W8 ? block_bytes(format) : QUANT_BYTES; }

// 4-bit blocks to bytes, as the tile registers want them.
template <int FORMAT>
static void unpack_blocks(const uint8_t *w, int num_blocks, uint8_t *quants) {
    const I low = _mm512_set1_epi8(15);
    for (int b = 0; b < num_blocks; b++, w += block_bytes(FORMAT), quants += QUANT_BYTES) {
        SL_UNROLL
        for (int j = 0; j < 4; j++) {
            const I line = load_int(w + j * LINE);
            store_int(quants + 2 * j * LINE, bit_and(line, low));
            store_int(quants + (2 * j + 1) * LINE, bit_and(_mm512_srli_epi16(line, 4), low));
        }
    }
}

// What the integer sums start with: these bits are the float 1.5 · 2^23, and adding an integer of less than 2^22 to them
// adds it to the float, exactly. So one subtraction makes floats of the sums. A conversion would do, but all instructions
// of the multipliers share one port while tile registers are in use, and additions have another.
constexpr int32_t SUMS_START = 0x4b400000;
constexpr float SUMS_START_FLOAT = 0x1.8p23f;

// The products of one group, in the tile register SIDE.
template <int SIDE>
static inline void multiply_group_on(const uint8_t *quants, const uint8_t *x, const int32_t *start) {
    constexpr int SUMS = SIDE, A = 2 + SIDE, B = 4 + SIDE;
    tile_load<SUMS>(start, 0);
    tile_load<A>(x, GROUP);
    tile_load<B>(quants, LINE);
    tile_dot_int8<SUMS, A, B>();
}

// total += scale_w · scale_x · sum (- minimum · scale_x · Σx), with a group's sums and the panel's numbers for it.
template <int FORMAT, int R>
static inline void add_group(F (&total)[R], const int32_t *sums, const uint8_t *halves, const uint8_t *numbers,
                             int mr) {
    const float *scales = (const float *)numbers, *scaled_sums = scales + mr;
    const int32_t *offsets = (const int32_t *)numbers + (FORMAT == SL_W8 ? 3 : 2) * mr;
    const F scale = load_half(halves), minimum = FORMAT == SL_W4_MIN ? load_half(halves + 2 * TILE) : scale;
    SL_UNROLL
    for (int m = 0; m < R; m++) {
        I sum = load_int(sums + TILE * m);
        if (FORMAT == SL_W4_MIN) total[m] = fnma(minimum, set(scaled_sums[m]), total[m]);
        else sum = add(sum, set_int(offsets[m]));
        total[m] = fma(sub(from_bits(sum), set(SUMS_START_FLOAT)), mul(scale, set(scales[m])), total[m]);
    }
}

template <int FORMAT>
static inline void multiply_group(const TiledProduct &p, int block, const int32_t *start) {
    const uint8_t *quants = p.quants + quants_step(FORMAT) * block,
                  *x = p.panel + panel_group_bytes(SL_INT8) * p.panel_rows * block;
    if (block % 2) multiply_group_on<1>(quants, x, start);
    else multiply_group_on<0>(quants, x, start);
}

static inline void store_sums(int block, int32_t (*ring)[TILE * TILE]) {
    if (block % 2) tile_store<1>(ring[block % SUMS_RING], LINE);
    else tile_store<0>(ring[block % SUMS_RING], LINE);
}

template <int FORMAT, int R>
static void tiled_product_of(const TiledProduct &p) {
    F total[R];
    SL_UNROLL
    for (int m = 0; m < R; m++) total[m] = p.adds && m < p.panel_rows ? load(p.out + m * p.out_stride) : set(0);
    alignas(64) int32_t ring[SUMS_RING][TILE * TILE], start[TILE];
    store_int(start, set_int(SUMS_START));
    const uint8_t *w = p.blocks, *numbers = p.panel + GROUP * p.panel_rows;
    for (int b = 0; b < p.num_blocks + SUMS_LATE; b++) {
        if (b < p.num_blocks) multiply_group<FORMAT>(p, b, start);
        if (b >= SUMS_LATE) {
            for (int line = p.first_line; line < p.last_line; line++) prefetch_far(w + line * LINE + p.ahead);
            add_group<FORMAT>(total, ring[(b - SUMS_LATE) % SUMS_RING], w + quant_bytes(FORMAT), numbers, p.panel_rows);
            w += block_bytes(FORMAT);
            numbers += panel_group_bytes(SL_INT8) * p.panel_rows;
        }
        if (b >= 1 && b <= p.num_blocks) store_sums(b - 1, ring);
    }
    SL_UNROLL
    for (int m = 0; m < R; m++)
        if (m < p.panel_rows) store(p.out + m * p.out_stride, total[m]);
}

// Rows are rounded up to a multiple of 4: those beyond are computed from whatever lies there, and dropped.
template <int FORMAT>
static void tiled_product(const TiledProduct &p) {
    if (p.panel_rows <= 8) tiled_product_of<FORMAT, 8>(p);
    else if (p.panel_rows <= 12) tiled_product_of<FORMAT, 12>(p);
    else tiled_product_of<FORMAT, 16>(p);
}

}  // namespace SL_TARGET
}  // namespace shardline
