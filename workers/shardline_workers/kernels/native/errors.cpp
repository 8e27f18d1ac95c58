#include "errors.h"

#include <cstdarg>
#include <cstdio>

namespace {

thread_local char last_error[256] = "";

}

namespace shardline {

int refuse(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

}  // namespace shardline

int32_t sl_abi_version() { return SL_ABI_VERSION; }

const char *sl_last_error() { return last_error; }
