// flags: -mavx512f -mavx512bw -mavx512vl -mavx512vnni -mavx512bf16 -mfma
// What the processor can do at most, one thread: int8 and bfloat16 dot products from registers, and reading of memory.
// Kernels are measured as shares of these. Seconds are the thread's CPU time, so that other processes count little.
#include <immintrin.h>

#include <cstdint>
#include <ctime>

namespace {

double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

constexpr int SUMS = 24;  // enough independent ones to hide the latency
constexpr int ROUNDS = 2'000'000;
constexpr int PRODUCTS_INT8 = 64, PRODUCTS_BF16 = 32;  // of one instruction

template <class Step> double giga_operations(int products, Step step) {
    const double start = cpu_seconds();
    for (int i = 0; i < ROUNDS; i++) step();
    return 2.0 * products * SUMS * ROUNDS / (cpu_seconds() - start) * 1e-9;
}

volatile float sink;

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT double peak_int8() {
    __m512i sums[SUMS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1);
    for (auto &sum : sums) sum = _mm512_setzero_si512();
    const double result = giga_operations(PRODUCTS_INT8, [&] {
        asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 24
        for (auto &sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
    });
    for (auto &sum : sums) sink = (float)_mm512_reduce_add_epi32(sum);
    return result;
}

EXPORT double peak_bf16() {
    __m512 sums[SUMS];
    __m512i a = _mm512_set1_epi16(0x3f80), b = a;
    for (auto &sum : sums) sum = _mm512_setzero_ps();
    const double result = giga_operations(PRODUCTS_BF16, [&] {
        asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 24
        for (auto &sum : sums) sum = _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
    });
    for (auto &sum : sums) sink = _mm512_reduce_add_ps(sum);
    return result;
}

// GB/s of one reading of num_bytes, a multiple of 512; the buffer should be larger than every cache.
EXPORT double read_bandwidth(const uint8_t *bytes, int64_t num_bytes) {
    __m512i sums[8] = {};
    const double start = cpu_seconds();
    for (int64_t i = 0; i < num_bytes; i += 512) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) sums[j] = _mm512_add_epi32(sums[j], _mm512_loadu_si512(bytes + i + j * 64));
    }
    const double seconds = cpu_seconds() - start;
    for (auto &sum : sums) sink = (float)_mm512_reduce_add_epi32(sum);
    return (double)num_bytes / seconds * 1e-9;
}
