// All operations for any processor.
#define SL_TARGET portable
#include "product_portable.h"

#include "operations.h"
