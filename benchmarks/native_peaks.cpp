// flags: -mavx512f -mavx512bw -mavx512vl -mavx512vnni -mavx512bf16 -mfma
// What the processor can do at most, one thread: products of int8, bfloat16 and float32 from registers, by vectors and by
// matrix instructions, and reading of memory.
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
constexpr int PRODUCTS_INT8 = 64, PRODUCTS_BF16 = 32, PRODUCTS_FP32 = 16;  // of one instruction

volatile float sink;

double giga_operations(int products, double seconds) { return 2.0 * products * SUMS * ROUNDS / seconds * 1e-9; }

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Written as assembly: the compiler must neither leave products out nor move sums through memory.
EXPORT double peak_int8() {
    const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1);
    __m512i sums[SUMS] = {};
    const double start = cpu_seconds();
    for (int i = 0; i < ROUNDS; i++) {
#pragma GCC unroll 24
        for (int j = 0; j < SUMS; j++) asm volatile("vpdpbusd %2, %1, %0" : "+v"(sums[j]) : "v"(a), "v"(b));
    }
    return giga_operations(PRODUCTS_INT8, cpu_seconds() - start);
}

EXPORT double peak_bf16() {
    const __m512i a = _mm512_set1_epi16(0x3f80), b = a;
    __m512i sums[SUMS] = {};
    const double start = cpu_seconds();
    for (int i = 0; i < ROUNDS; i++) {
#pragma GCC unroll 24
        for (int j = 0; j < SUMS; j++) asm volatile("vdpbf16ps %2, %1, %0" : "+v"(sums[j]) : "v"(a), "v"(b));
    }
    return giga_operations(PRODUCTS_BF16, cpu_seconds() - start);
}

EXPORT double peak_fp32() {
    const __m512 a = _mm512_set1_ps(1), b = a;
    __m512 sums[SUMS] = {};
    const double start = cpu_seconds();
    for (int i = 0; i < ROUNDS; i++) {
#pragma GCC unroll 24
        for (int j = 0; j < SUMS; j++) asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sums[j]) : "v"(a), "v"(b));
    }
    return giga_operations(PRODUCTS_FP32, cpu_seconds() - start);
}

namespace {

constexpr int TILE_PRODUCTS_INT8 = 16 * 16 * 64, TILE_PRODUCTS_BF16 = 16 * 16 * 32;  // of one instruction
constexpr int TILE_SUMS = 4;

// All eight registers of 16 rows of 64 bytes. The process must have asked for them.
void configure_tiles() {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    asm volatile("ldtilecfg %0" : : "m"(shapes));
    asm volatile("tilezero %tmm0; tilezero %tmm1; tilezero %tmm2; tilezero %tmm3");
    asm volatile("tilezero %tmm4; tilezero %tmm5; tilezero %tmm6; tilezero %tmm7");
}

double giga_tile_operations(int products, double seconds) {
    asm volatile("tilerelease");
    return 2.0 * products * TILE_SUMS * ROUNDS / seconds * 1e-9;
}

}  // namespace

// Groups of 32 inputs fill half of an instruction's 64: that is the bound for weights with a scale for each group.
EXPORT double peak_amx_int8() {
    configure_tiles();
    const double start = cpu_seconds();
    for (int i = 0; i < ROUNDS; i++) {
        asm volatile("tdpbsud %tmm6, %tmm4, %tmm0; tdpbsud %tmm7, %tmm4, %tmm1");
        asm volatile("tdpbsud %tmm6, %tmm5, %tmm2; tdpbsud %tmm7, %tmm5, %tmm3");
    }
    return giga_tile_operations(TILE_PRODUCTS_INT8, cpu_seconds() - start) / 2;
}

EXPORT double peak_amx_bf16() {
    configure_tiles();
    const double start = cpu_seconds();
    for (int i = 0; i < ROUNDS; i++) {
        asm volatile("tdpbf16ps %tmm6, %tmm4, %tmm0; tdpbf16ps %tmm7, %tmm4, %tmm1");
        asm volatile("tdpbf16ps %tmm6, %tmm5, %tmm2; tdpbf16ps %tmm7, %tmm5, %tmm3");
    }
    return giga_tile_operations(TILE_PRODUCTS_BF16, cpu_seconds() - start);
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
    for (const __m512i sum : sums) sink = (float)_mm512_reduce_add_epi32(sum);
    return (double)num_bytes / seconds * 1e-9;
}
