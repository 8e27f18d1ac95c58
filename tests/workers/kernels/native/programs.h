// Small programs on random numbers, in C++ alone: what programs.py is to the tests in Python.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "api.h"

namespace {

[[noreturn]] void fail(const std::string &text) {
    fprintf(stderr, "compare_targets: %s\n", text.c_str());
    exit(1);
}

void expect(bool holds, const std::string &what) {
    if (!holds) fail(what + ": " + sl_last_error());
}

// ---- values ----

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
    uint32_t bits() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return (uint32_t)(state_ >> 33);
    }
    int below(int bound) { return (int)(bits() % (uint32_t)bound); }
    // Bell-shaped, mostly within ±3.
    float value() {
        int sum = 0;
        for (int i = 0; i < 6; i++) sum += below(4096) - 2048;
        return (float)sum / 2896.f;
    }

private:
    uint64_t state_;
};

// Zeroed memory that starts on 64 bytes.
template <class T>
class Buffer {
public:
    explicit Buffer(int64_t size) : size_((size_t)size), first_(new (std::align_val_t(64)) T[size_]()) {}
    ~Buffer() { operator delete[](first_, std::align_val_t(64)); }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    T *data() const { return first_; }
    T &operator[](int64_t i) const { return first_[i]; }
    size_t size() const { return size_; }

private:
    const size_t size_;
    T *const first_;
};

struct Values : Buffer<float> {
    Values(int64_t size, uint64_t seed) : Buffer(size) {
        Random random(seed);
        for (int64_t i = 0; i < size; i++) (*this)[i] = random.value();
    }
};

// A result's bytes. Any NaN counts as the same one: which bits it has is left to the processor.
class Result {
public:
    void add(const Buffer<float> &values) {
        for (size_t i = 0; i < values.size(); i++) {
            const float value = std::isnan(values[(int64_t)i]) ? NAN : values[(int64_t)i];
            add_bytes(&value, sizeof value);
        }
    }
    template <class T>
    void add(const Buffer<T> &values) {
        add_bytes(values.data(), sizeof(T) * values.size());
    }
    bool operator==(const Result &other) const { return bytes_ == other.bytes_; }
    uint64_t digest() const {  // FNV-1a
        uint64_t hash = 14695981039346656037u;
        for (uint8_t byte : bytes_) hash = (hash ^ byte) * 1099511628211u;
        return hash;
    }

private:
    void add_bytes(const void *bytes, size_t count) {
        const uint8_t *first = static_cast<const uint8_t *>(bytes);
        bytes_.insert(bytes_.end(), first, first + count);
    }
    std::vector<uint8_t> bytes_;
};

// ---- programs ----

constexpr int MAX_TOKENS = 512, MAX_SEQS = 8, MAX_BLOCKS = 16;

struct Target {
    int isa, num_threads;
    sl_pool *pool;

    std::string name() const {
        return std::string(sl_isa_name(isa)) + " on " + std::to_string(num_threads) + " threads";
    }
};

// A step's arrays; token i of a batch without sequences is token 7 · i.
struct Batch {
    int32_t header[SL_COUNT_COUNT] = {};
    Buffer<int64_t> token_ids{MAX_TOKENS}, positions{MAX_TOKENS}, places{MAX_TOKENS}, slots{MAX_SEQS},
        tables{MAX_SEQS * MAX_BLOCKS}, sampled{MAX_SEQS};
    Buffer<int32_t> starts{MAX_SEQS + 1}, contexts{MAX_SEQS};

    explicit Batch(int num_tokens, int num_sampled = 0) {
        header[SL_TOKENS] = num_tokens;
        header[SL_SAMPLED] = num_sampled;
        for (int i = 0; i < num_tokens; i++) token_ids[i] = 7 * i % 50;
        for (int i = 0; i < num_sampled; i++) sampled[i] = num_tokens - 1 - i;
    }

    // The last `count` tokens of a context, on blocks first_block, first_block + 1, …
    void add_sequence(int context, int count, int first_block, int block_size) {
        const int sequence = header[SL_SEQUENCES]++, start = starts[sequence];
        starts[sequence + 1] = start + count;
        contexts[sequence] = context;
        slots[sequence] = sequence;
        for (int i = 0; i < MAX_BLOCKS; i++) tables[sequence * MAX_BLOCKS + i] = first_block + i;
        for (int i = 0; i < count; i++) {
            positions[start + i] = context - count + i;
            places[start + i] = first_block * block_size + positions[start + i];
        }
        header[SL_TOKENS] = start + count;
    }
};

sl_op op_of(int kind, int rows = SL_TOKENS) {
    sl_op op;
    memset(&op, 0, sizeof op);
    op.kind = kind;
    op.rows = rows;
    return op;
}

void run(const Target &target, const std::vector<sl_op> &ops, const Batch &batch) {
    const sl_limits limits{MAX_TOKENS, MAX_SEQS, MAX_BLOCKS, MAX_SEQS};
    sl_program *program = sl_program_create(ops.data(), (int64_t)ops.size(), &limits, target.isa, 2);
    expect(program, "sl_program_create");
    const sl_step step{batch.header,        batch.token_ids.data(), batch.positions.data(),
                       batch.places.data(), batch.starts.data(),    batch.contexts.data(),
                       batch.slots.data(),  batch.tables.data(),    batch.sampled.data()};
    expect(sl_program_run(program, target.pool, &step, target.num_threads, nullptr) == SL_OK, "sl_program_run");
    sl_program_destroy(program);
}

struct Matrix {
    Buffer<uint8_t> tiles;
    sl_weight weight{};

    Matrix(int format, int outputs, int inputs, uint64_t seed) : tiles(sl_weight_bytes(format, outputs, inputs)) {
        const Values rows((int64_t)outputs * inputs, seed);
        sl_packing packing{};
        packing.format = format;
        packing.source = SL_FROM_F32;
        packing.num_rows = outputs;
        packing.num_inputs = inputs;
        packing.tile_step = 1;
        packing.rows = rows.data();
        packing.rows_bytes = (int64_t)(rows.size() * sizeof(float));
        packing.packed = tiles.data();
        packing.packed_bytes = (int64_t)tiles.size();
        expect(sl_pack(&packing) == SL_OK, "sl_pack");
        weight.format = format;
        weight.num_outputs = outputs;
        weight.num_inputs = inputs;
        weight.tiles = tiles.data();
    }
};

struct Panels {
    Buffer<uint8_t> bytes;
    sl_panels panels;

    Panels(int kind, int rows, int inputs)
        : bytes(sl_panel_bytes(kind, rows, inputs)), panels{kind, inputs, bytes.data()} {}
};

int panel_kind(int format) { return format == SL_BF16 ? SL_PAIRS : SL_INT8; }

sl_op quantise_op(const Buffer<float> &x, int stride, const Panels &panels) {
    sl_op op = op_of(SL_OP_QUANTISE);
    op.quantise.x = x.data();
    op.quantise.x_stride = stride;
    op.quantise.panels = panels.panels;
    return op;
}

}  // namespace
