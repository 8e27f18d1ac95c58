// Sixteen lanes in two AVX2 registers. lanes_portable.h says what each function means.
#pragma once
#include <immintrin.h>

#include "layout.h"

namespace shardline {
namespace SL_TARGET {

struct F {
    __m256 a, b;
};
struct I {
    __m256i a, b;
};
struct M {
    __m256 a, b;  // all bits of a lane set or none
};

static inline F load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float *p, F x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
static inline F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
static inline F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
static inline F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
static inline F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
static inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
static inline F fnma(F x, F y, F z) { return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)}; }
static inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
static inline __m256 round_half(__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F round(F x) { return {round_half(x.a), round_half(x.b)}; }

static inline I load_int(const void *p) {
    return {_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1)};
}
static inline void store_int(void *p, I x) {
    _mm256_storeu_si256((__m256i *)p, x.a), _mm256_storeu_si256((__m256i *)p + 1, x.b);
}
static inline I set_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
static inline I add(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
static inline I max(I x, I y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
static inline I bit_and(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
template <int N>
static inline I shift_left(I x) {
    return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)};
}
template <int N>
static inline I shift_right(I x) {
    return {_mm256_srai_epi32(x.a, N), _mm256_srai_epi32(x.b, N)};
}

#ifdef __AVXVNNI__
static inline __m256i dot_half(__m256i sum, __m256i small, __m256i bytes) {
    return _mm256_dpbusd_avx_epi32(sum, small, bytes);
}
#else
// Two products fit 16 bits: 2 · 127 · 128 = 32,512.
static inline __m256i dot_half(__m256i sum, __m256i small, __m256i bytes) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(small, bytes), _mm256_set1_epi16(1)));
}
#endif
static inline I dot(I x, I small, I bytes) {
    return {dot_half(x.a, small.a, bytes.a), dot_half(x.b, small.b, bytes.b)};
}

static inline I bits(F x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
static inline F from_bits(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
static inline I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
static inline F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }

static inline M first_lanes(int n) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), count = _mm256_set1_epi32(n);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(count, lanes)),
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, _mm256_add_epi32(lanes, _mm256_set1_epi32(8))))};
}
static inline M less(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)}; }
static inline M less_equal(F x, F y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ)};
}
static inline F select(M m, F x, F y) { return {_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)}; }
static inline uint32_t lane_bits(M m) { return (uint32_t)(_mm256_movemask_ps(m.a) | _mm256_movemask_ps(m.b) << 8); }

static inline F load_half(const void *p) {
    const __m128i *h = (const __m128i *)p;
    return {_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
static inline __m256 widen_bf16(__m128i h) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline F load_bf16(const void *p) {
    const __m128i *h = (const __m128i *)p;
    return {widen_bf16(_mm_loadu_si128(h)), widen_bf16(_mm_loadu_si128(h + 1))};
}

// Two registers of 8 int32 to 16 int16 in order; values fit.
static inline __m256i narrow(__m256i a, __m256i b) { return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8); }
// Low byte of each lane, as the other instruction sets truncate.
static inline void store_bytes(void *p, I x) {
    const __m256i low = _mm256_set1_epi32(0xff);
    const __m256i words = narrow(_mm256_and_si256(x.a, low), _mm256_and_si256(x.b, low));
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)p, bytes);
}

static inline __m256i round_bf16(__m256i u) {
    const __m256i top = _mm256_srli_epi32(u, 16), magnitude = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
    const __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
    const __m256i tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x800000), magnitude);
    r = _mm256_blendv_epi8(r, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
    return _mm256_blendv_epi8(r, _mm256_and_si256(top, _mm256_set1_epi32(0x8000)), tiny);
}
static inline void store_bf16(void *p, F x) {
    const I u = bits(x);
    _mm256_storeu_si256((__m256i *)p, narrow(round_bf16(u.a), round_bf16(u.b)));
}

static inline __m256 lower(F x) { return x.a; }
static inline __m256 upper(F x) { return x.b; }

}  // namespace SL_TARGET
}  // namespace shardline

#include "reduce_x86.h"
