// arm64 flags: -march=armv8.2-a+dotprod
// All operations for 64-bit ARM processors with dot products of int8 (all of Apple's for computers, servers from 2019).
#define SL_TARGET neon_dotprod
#include "product_neon.h"

#include "operations.h"
