#include "isa.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace shardline {

namespace portable {
extern const Operations operations;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Operations operations;
}
namespace avx_vnni {
extern const Operations operations;
}
namespace avx512_vnni {
extern const Operations operations;
}
namespace avx512_bf16 {
extern const Operations operations;
}
#endif

namespace {

struct InstructionSet {
    const char *name;
    const Operations *operations;
};

#if defined(__x86_64__)
const InstructionSet SETS[SL_ISA_COUNT] = {
    {"portable", &portable::operations},       {"avx2", &avx2::operations},
    {"avx-vnni", &avx_vnni::operations},       {"avx512-vnni", &avx512_vnni::operations},
    {"avx512-bf16", &avx512_bf16::operations},
};

bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

// GCC 12 does not know avxvnni by name: CPUID leaf 7, subleaf 1, EAX bit 4. Its registers are those of AVX2.
bool has_avx_vnni() {
    uint32_t a = 7, b, c = 1, d;
    asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return has_avx2() && (a >> 4 & 1);
}

// Intel's cores that have vdpbf16ps start one every second cycle, but two plain multiply-adds in each: 6 rows × 4 tiles run
// at 152 GFLOP/s without it and at 115 with it (Sapphire Rapids, one core). AMD's start one every cycle: 220 with it.
bool bf16_is_slow() { return __builtin_cpu_is("intel"); }

bool has(int isa) {
    switch (isa) {
        case SL_ISA_PORTABLE: return true;
        case SL_ISA_AVX2: return has_avx2();
        case SL_ISA_AVX_VNNI: return has_avx_vnni();
        case SL_ISA_AVX512_VNNI: return has_avx512();
        case SL_ISA_AVX512_BF16: return has_avx512() && __builtin_cpu_supports("avx512bf16");
        default: return false;
    }
}
#else
const InstructionSet SETS[SL_ISA_COUNT] = {{"portable", &portable::operations},
                                           {"avx2", nullptr},
                                           {"avx-vnni", nullptr},
                                           {"avx512-vnni", nullptr},
                                           {"avx512-bf16", nullptr}};

bool has(int isa) { return isa == SL_ISA_PORTABLE; }
bool bf16_is_slow() { return false; }
#endif

}  // namespace

bool isa_is_available(int isa) { return isa >= 0 && isa < SL_ISA_COUNT && has(isa); }

const Operations &operations_of(int isa) { return *SETS[isa].operations; }

#if defined(__x86_64__)
FloatingPointMode::FloatingPointMode() : before_(_mm_getcsr()) { _mm_setcsr(0x9fc0); }
FloatingPointMode::~FloatingPointMode() { _mm_setcsr((uint32_t)before_); }
#elif defined(__aarch64__)
FloatingPointMode::FloatingPointMode() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"((uint64_t)1 << 24));
}
FloatingPointMode::~FloatingPointMode() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
#else
FloatingPointMode::FloatingPointMode() : before_(0) {}
FloatingPointMode::~FloatingPointMode() {}
#endif

}  // namespace shardline

uint32_t sl_isa_available() {
    uint32_t mask = 0;
    for (int isa = 0; isa < SL_ISA_COUNT; isa++) mask |= (uint32_t)shardline::isa_is_available(isa) << isa;
    return mask;
}

int32_t sl_isa_best() {
    int best = SL_ISA_PORTABLE;
    for (int isa = 0; isa < SL_ISA_COUNT; isa++) best = shardline::isa_is_available(isa) ? isa : best;
    return best == SL_ISA_AVX512_BF16 && shardline::bf16_is_slow() ? SL_ISA_AVX512_VNNI : best;
}

const char *sl_isa_name(int32_t isa) { return isa >= 0 && isa < SL_ISA_COUNT ? shardline::SETS[isa].name : nullptr; }
