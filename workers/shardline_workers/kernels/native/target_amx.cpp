// flags: -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16 -mfma -mf16c -mamx-tile -mamx-bf16 -mprefer-vector-width=512
// All operations for processors with AVX512 VNNI and the matrix instructions of AMX (Intel's servers from 2023).
#define SL_TARGET amx
#define SL_AMX
#include "product_avx512.h"

#include "operations.h"
