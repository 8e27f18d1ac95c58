// Sixteen lanes in one AVX512 register. lanes_portable.h says what each function means.
#pragma once
#include <immintrin.h>

#include "layout.h"

namespace shardline {
namespace SL_TARGET {

using F = __m512;
using I = __m512i;
using M = __mmask16;

static inline F load(const float *p) { return _mm512_loadu_ps(p); }
static inline void store(float *p, F a) { _mm512_storeu_ps(p, a); }
static inline F set(float a) { return _mm512_set1_ps(a); }
static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
static inline F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
static inline F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline I load_int(const void *p) { return _mm512_loadu_si512(p); }
static inline void store_int(void *p, I a) { _mm512_storeu_si512(p, a); }
static inline I set_int(int32_t a) { return _mm512_set1_epi32(a); }
static inline I add(I a, I b) { return _mm512_add_epi32(a, b); }
static inline I max(I a, I b) { return _mm512_max_epi32(a, b); }
static inline I bit_and(I a, I b) { return _mm512_and_si512(a, b); }
template <int N>
static inline I shift_left(I a) {
    return _mm512_slli_epi32(a, N);
}
template <int N>
static inline I shift_right(I a) {
    return _mm512_srai_epi32(a, N);
}

static inline I dot(I sum, I small, I bytes) { return _mm512_dpbusd_epi32(sum, small, bytes); }

static inline I bits(F a) { return _mm512_castps_si512(a); }
static inline F from_bits(I a) { return _mm512_castsi512_ps(a); }
static inline I to_int(F a) { return _mm512_cvtps_epi32(a); }
static inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }

static inline M first_lanes(int n) { return (M)(n >= TILE ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }
static inline M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline M less_equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline F select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
static inline uint32_t lane_bits(M m) { return m; }

static inline F load_half(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline F load_bf16(const void *p) {
    return from_bits(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline void store_bytes(void *p, I a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a)); }

static inline void store_bf16(void *p, F a) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(a));
#else
    const I u = bits(a), magnitude = _mm512_and_si512(u, set_int(0x7fffffff));
    const I odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), set_int(1));
    I r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, set_int(0x7fff)), odd), 16);
    const M nan = _mm512_cmpgt_epi32_mask(magnitude, set_int(0x7f800000)),
            tiny = _mm512_cmplt_epi32_mask(magnitude, set_int(0x800000));
    r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), set_int(0x40));
    r = _mm512_mask_and_epi32(r, tiny, _mm512_srli_epi32(u, 16), set_int(0x8000));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(r));
#endif
}

static inline __m256 lower(F a) { return _mm512_castps512_ps256(a); }
static inline __m256 upper(F a) { return _mm512_extractf32x8_ps(a, 1); }

}  // namespace SL_TARGET
}  // namespace shardline

#include "reduce_x86.h"
