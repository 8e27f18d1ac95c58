// Sums and maxima over sixteen lanes by halving, in the order that lanes_portable.h has: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
#pragma once

namespace shardline {
namespace SL_TARGET {

static inline float reduce_add(F x) {
    const __m256 eight = _mm256_add_ps(lower(x), upper(x));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float reduce_max(F x) {
    const __m256 eight = _mm256_max_ps(lower(x), upper(x));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

static inline __m256i lower_int(I x) { return _mm256_castps_si256(lower(from_bits(x))); }
static inline __m256i upper_int(I x) { return _mm256_castps_si256(upper(from_bits(x))); }

static inline int32_t reduce_add(I x) {
    const __m256i eight = _mm256_add_epi32(lower_int(x), upper_int(x));
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

static inline int32_t reduce_max(I x) {
    const __m256i eight = _mm256_max_epi32(lower_int(x), upper_int(x));
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

static inline void prefetch_near(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
static inline void prefetch_far(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }

}  // namespace SL_TARGET
}  // namespace shardline
