// Packing weights into tiles and back. One thread; callers split by tiles.
#include "errors.h"
#include "groups.h"

namespace shardline {
namespace {

bool is_size(int64_t size) { return size >= 1 && size < SIZE_MAX_ALLOWED; }

int check_source(const sl_packing &p) {
    if (p.source < 0 || p.source >= SL_SOURCE_COUNT) return refuse(SL_BAD_ARGUMENT, "source %d is unknown", p.source);
    if (is_blocked(p.source) && p.num_inputs % source_block_inputs(p.source))
        return refuse(SL_BAD_ARGUMENT, "num_inputs is %lld; blocks want a multiple of %d", (long long)p.num_inputs,
                      source_block_inputs(p.source));
    const int64_t needed = sl_source_bytes(p.source, p.num_rows, p.num_inputs);
    if (!p.rows || p.rows_bytes < needed)
        return refuse(SL_BAD_ARGUMENT, "rows have %lld bytes; %lld are needed", (long long)p.rows_bytes,
                      (long long)needed);
    return SL_OK;
}

int check_tiles(const sl_packing &p) {
    if (p.format < 0 || p.format >= SL_FORMAT_COUNT) return refuse(SL_BAD_ARGUMENT, "format %d is unknown", p.format);
    if (!is_size(p.num_rows) || !is_size(p.num_inputs))
        return refuse(SL_BAD_ARGUMENT, "rows are [%lld, %lld]; sizes are 1 … 2^30 - 1", (long long)p.num_rows,
                      (long long)p.num_inputs);
    if (p.first_tile < 0 || p.first_tile >= SIZE_MAX_ALLOWED || !is_size(p.tile_step))
        return refuse(SL_BAD_ARGUMENT, "first_tile is %lld, tile_step %lld", (long long)p.first_tile,
                      (long long)p.tile_step);
    const __int128 tiles = p.first_tile + (__int128)(num_tiles(p.num_rows) - 1) * p.tile_step + 1;
    if (!p.packed || tiles * tile_bytes(p.format, p.num_inputs) > p.packed_bytes)
        return refuse(SL_BAD_ARGUMENT, "%lld tiles end beyond packed_bytes, %lld", (long long)tiles,
                      (long long)p.packed_bytes);
    return SL_OK;
}

// 32 weights of a row into a block; inputs beyond the row's end are zero.
void pack_group(const sl_packing &p, const uint8_t *row, int64_t number, uint8_t *block, int output) {
    const int groups = source_block_inputs(p.source) / GROUP, part = (int)(number % groups);
    const uint8_t *bytes = row + number / groups * source_block_bytes(p.source);
    Group group;
    if (is_blocked(p.source) && take_quants(p.source, p.format, bytes, part, group))
        return put_group(p.format, block, output, group);
    float values[GROUP] = {};
    const int64_t left = p.num_inputs - number * GROUP;
    if (is_blocked(p.source)) read_blocked(p.source, bytes, part, values);
    else read_floats(p.source, bytes, left < GROUP ? (int)left : GROUP, values);
    if (p.format == SL_BF16) return put_bf16(block, output, values);
    quantise(p.format, values, group);
    put_group(p.format, block, output, group);
}

uint8_t *tile_of(const sl_packing &p, int64_t number) {
    return static_cast<uint8_t *>(p.packed) +
           (p.first_tile + number * p.tile_step) * tile_bytes(p.format, p.num_inputs);
}

void pack_tile(const sl_packing &p, int64_t number) {
    uint8_t *tile = tile_of(p, number);
    const int64_t row_bytes = sl_source_bytes(p.source, 1, p.num_inputs), left = p.num_rows - number * TILE;
    if (left < TILE) memset(tile, 0, (size_t)tile_bytes(p.format, p.num_inputs));
    for (int output = 0; output < TILE && output < left; output++) {
        const uint8_t *row = static_cast<const uint8_t *>(p.rows) + (number * TILE + output) * row_bytes;
        for (int64_t b = 0; b < ceil_div(p.num_inputs, GROUP); b++)
            pack_group(p, row, b, tile + b * block_bytes(p.format), output);
    }
}

void unpack_row(const sl_packing &p, int64_t row, float *out) {
    const uint8_t *tile = tile_of(p, row / TILE);
    for (int64_t i = 0; i < p.num_inputs; i++)
        out[i] = weight_at(p.format, tile + i / GROUP * block_bytes(p.format), (int)(row % TILE), (int)(i % GROUP));
}

}  // namespace
}  // namespace shardline

using namespace shardline;

int64_t sl_weight_bytes(int32_t format, int64_t num_outputs, int64_t num_inputs) {
    if (format < 0 || format >= SL_FORMAT_COUNT || !is_size(num_outputs) || !is_size(num_inputs))
        return refuse(SL_BAD_ARGUMENT, "no weight of format %d is [%lld, %lld]", format, (long long)num_outputs,
                      (long long)num_inputs);
    return num_tiles(num_outputs) * tile_bytes(format, num_inputs);
}

int64_t sl_source_bytes(int32_t source, int64_t num_rows, int64_t num_inputs) {
    if (source < 0 || source >= SL_SOURCE_COUNT || !is_size(num_rows) || !is_size(num_inputs))
        return refuse(SL_BAD_ARGUMENT, "no source %d is [%lld, %lld]", source, (long long)num_rows,
                      (long long)num_inputs);
    if (is_blocked(source))
        return num_rows * ceil_div(num_inputs, source_block_inputs(source)) * source_block_bytes(source);
    return num_rows * num_inputs * (source == SL_FROM_F32 ? 4 : 2);
}

int sl_pack(const sl_packing *packing) {
    if (!packing) return refuse(SL_BAD_ARGUMENT, "packing is NULL");
    if (int status = check_tiles(*packing)) return status;
    if (int status = check_source(*packing)) return status;
    for (int64_t tile = 0; tile < num_tiles(packing->num_rows); tile++) pack_tile(*packing, tile);
    return SL_OK;
}

int sl_unpack(const sl_packing *packing, float *rows) {
    if (!packing || !rows) return refuse(SL_BAD_ARGUMENT, "packing or rows is NULL");
    if (int status = check_tiles(*packing)) return status;
    for (int64_t row = 0; row < packing->num_rows; row++) unpack_row(*packing, row, rows + row * packing->num_inputs);
    return SL_OK;
}
