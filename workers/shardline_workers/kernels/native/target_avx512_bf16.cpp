// flags: -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16 -mfma -mf16c -mprefer-vector-width=512
// All operations for processors with AVX512 VNNI and bfloat16 (AMD from Zen 4).
#define SL_TARGET avx512_bf16
#include "product_avx512.h"

#include "operations.h"
