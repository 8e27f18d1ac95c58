#include "isa.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
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
namespace amx {
extern const Operations operations;
}
#elif defined(__aarch64__)
namespace neon {
extern const Operations operations;
}
namespace neon_dotprod {
extern const Operations operations;
}
#endif

namespace {

const char *const NAMES[SL_ISA_COUNT] = {"portable",    "avx2", "avx-vnni", "avx512-vnni",
                                         "avx512-bf16", "amx",  "neon",     "neon-dotprod"};

#if defined(__x86_64__)
const Operations *const OPERATIONS[SL_ISA_COUNT] = {&portable::operations,    &avx2::operations,
                                                    &avx_vnni::operations,    &avx512_vnni::operations,
                                                    &avx512_bf16::operations, &amx::operations};

// Clang 14 does not know f16c by name: CPUID leaf 1, ECX bit 29.
bool has_f16c() {
    uint32_t a = 1, b, c = 0, d;
    asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return c >> 29 & 1;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

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

// CPUID leaf 7, EDX bits 22 and 24: bfloat16, tiles.
bool processor_has_amx() {
    uint32_t a = 7, b, c = 0, d;
    asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (d >> 22 & 1) && (d >> 24 & 1);
}

#ifdef __linux__
// Linux lets a process use tile registers only once it has asked; threads that are there already may then, too.
bool has_amx() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    static const bool is_permitted = processor_has_amx() &&
                                     syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    return is_permitted;
}
#else
bool has_amx() { return false; }
#endif

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
        case SL_ISA_AMX: return has_avx512() && __builtin_cpu_supports("avx512bf16") && has_amx();
        default: return false;
    }
}
#elif defined(__aarch64__)
const Operations *const OPERATIONS[SL_ISA_COUNT] = {
    &portable::operations, nullptr, nullptr, nullptr, nullptr, nullptr, &neon::operations, &neon_dotprod::operations};

#if defined(__linux__)
bool has_dotprod() {
    constexpr unsigned long ASIMDDP = 1 << 20;  // HWCAP_ASIMDDP, which old headers lack
    return getauxval(AT_HWCAP) & ASIMDDP;
}
#else
bool has_dotprod() { return true; }  // Apple's, of which every one that runs macOS has it
#endif

bool has(int isa) {
    switch (isa) {
        case SL_ISA_PORTABLE: return true;
        case SL_ISA_NEON: return true;
        case SL_ISA_NEON_DOTPROD: return has_dotprod();
        default: return false;
    }
}
bool bf16_is_slow() { return false; }
#else
const Operations *const OPERATIONS[SL_ISA_COUNT] = {&portable::operations};

bool has(int isa) { return isa == SL_ISA_PORTABLE; }
bool bf16_is_slow() { return false; }
#endif

}  // namespace

bool isa_is_available(int isa) { return isa >= 0 && isa < SL_ISA_COUNT && has(isa); }

const Operations &operations_of(int isa) { return *OPERATIONS[isa]; }

#if defined(__x86_64__)
FloatingPointMode::FloatingPointMode() : before_(_mm_getcsr()) { _mm_setcsr(0x9fc0); }
FloatingPointMode::~FloatingPointMode() { _mm_setcsr((uint32_t)before_); }
#elif defined(__aarch64__)
FloatingPointMode::FloatingPointMode() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    // Denormals to zero, and every NaN the default one: which of two NaNs comes out would depend on the compiler.
    asm volatile("msr fpcr, %0" : : "r"((uint64_t)3 << 24));
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

const char *sl_isa_name(int32_t isa) { return isa >= 0 && isa < SL_ISA_COUNT ? shardline::NAMES[isa] : nullptr; }
