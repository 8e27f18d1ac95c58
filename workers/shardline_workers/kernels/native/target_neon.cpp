// arm64 flags:
// All operations for every 64-bit ARM processor.
#define SL_TARGET neon
#include "product_neon.h"

#include "operations.h"
