// Runs every operation on every instruction set that this processor has, on one thread and on two, and compares bit for
// bit with portable code on one thread. It needs neither Python nor torch, so that it runs where these are not, an emulator
// above all; .ci/native-arm64 builds it.
//
// It prints a line for each case with a digest of its result. Inputs come from integers alone: two kinds of processor that
// compute alike print the same digests.
#include "programs.h"

namespace {

// ---- cases ----

constexpr int FORMATS[] = {SL_BF16, SL_W4_MIN, SL_W8, SL_W4};
constexpr const char *FORMAT_NAMES[] = {"bf16", "w4-min", "w8", "w4"};

// Rows with what is special: a group without a scale, one whose products are denormals, an infinity and a NaN.
void spoil(Values &x, int rows, int inputs) {
    for (int i = 0; i < 32; i++) {
        x[i] = 0;
        if (rows > 1) x[inputs + i] *= 1e-38f;
    }
    if (rows > 4) x[3 * inputs + 5] = INFINITY;
    if (rows > 4) x[4 * inputs + 40] = NAN;
}

Result linear(const Target &target, int format) {
    constexpr int OUTPUTS = 133, INPUTS = 100;
    const Matrix matrix(format, OUTPUTS, INPUTS, 1);
    Result result;
    result.add(matrix.tiles);
    for (int rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 37}) {
        Values x((int64_t)rows * INPUTS, 2);
        spoil(x, rows, INPUTS);
        const Buffer<float> out((int64_t)rows * OUTPUTS);
        const Panels panels(panel_kind(format), rows, INPUTS);
        sl_op op = op_of(SL_OP_LINEAR);
        op.linear = {panels.panels, matrix.weight, out.data(), OUTPUTS};
        run(target, {quantise_op(x, INPUTS, panels), op}, Batch(rows));
        if (rows < 14) result.add(panels.bytes);  // from there on, matrix instructions have panels of their own
        result.add(out);
    }
    return result;
}

Result gated_linear(const Target &target, int format) {
    constexpr int SIZE = 80, INPUTS = 96, ROWS = 23;
    const Matrix matrix(format, 2 * SIZE, INPUTS, 3);
    const Values x(ROWS * INPUTS, 4);
    const Panels panels(panel_kind(format), ROWS, INPUTS), activated(panel_kind(format), ROWS, SIZE);
    sl_op op = op_of(SL_OP_GATED_LINEAR);
    op.gated_linear = {panels.panels, matrix.weight, activated.panels};
    run(target, {quantise_op(x, INPUTS, panels), op}, Batch(ROWS));
    Result result;
    result.add(activated.bytes);
    return result;
}

Result embedding(const Target &target, int format) {
    constexpr int VOCABULARY = 50, WIDTH = 100, ROWS = 11;
    const Matrix table(format, VOCABULARY, WIDTH, 5);
    const Buffer<float> out(ROWS * WIDTH);
    sl_op op = op_of(SL_OP_EMBEDDING);
    op.embedding = {table.weight, out.data(), WIDTH, 2.5f, 0};
    run(target, {op}, Batch(ROWS));
    Result result;
    result.add(out);
    return result;
}

Result norm(const Target &target, int kind) {
    constexpr int WIDTH = 100, ROWS = 17, SAMPLED = 5;
    const Values residual(ROWS * WIDTH, 6), delta(ROWS * WIDTH, 7), weight(WIDTH, 8);
    const Buffer<float> out(ROWS * WIDTH), last(SAMPLED * WIDTH), gathered(SAMPLED * WIDTH);
    const Panels panels(kind, ROWS, WIDTH), last_panels(kind, SAMPLED, WIDTH);
    sl_op whole = op_of(SL_OP_NORM), final = op_of(SL_OP_NORM, SL_SAMPLED),
          gather = op_of(SL_OP_GATHER_SAMPLED, SL_SAMPLED);
    whole.norm = {residual.data(), delta.data(), weight.data(), out.data(), panels.panels,
                  WIDTH,           1e-5f,        nullptr,       WIDTH};
    final.norm = {residual.data(), delta.data(), weight.data(), last.data(), last_panels.panels,
                  WIDTH,           1e-5f,        nullptr,       WIDTH};
    gather.gather = {residual.data(), gathered.data(), WIDTH};
    run(target, {whole, final, gather}, Batch(ROWS, SAMPLED));
    Result result;
    for (const Buffer<float> *part : {(const Buffer<float> *)&residual, &out, &last, &gathered}) result.add(*part);
    result.add(panels.bytes);
    result.add(last_panels.bytes);
    return result;
}

Result gated_activation(const Target &target, int kind) {
    constexpr int SIZE = 72, ROWS = 19;
    const Values gate_up(ROWS * 2 * SIZE, 9), spoilt(ROWS * 2 * SIZE, 9);
    // Behind the denormal: exponents that are halves, so that they are ties in rounding.
    const float special[] = {0,
                             -0.f,
                             -200,
                             200,
                             -88.5f,
                             88.5f,
                             INFINITY,
                             -INFINITY,
                             NAN,
                             1e-40f,
                             0x1.62e43p-2f,
                             0x1.0a2b24p+0f,
                             0x1.bb9d3cp+0f,
                             0x1.3687aap+1f,
                             0x1.8f40b6p+1f,
                             0x1.e7f9c2p+1f};
    memcpy(spoilt.data(), special, sizeof special);
    const Buffer<float> out(ROWS * SIZE);
    const Panels panels(kind, ROWS, SIZE);
    sl_op whole = op_of(SL_OP_GATED_ACTIVATION), broken = op_of(SL_OP_GATED_ACTIVATION);
    whole.gated_activation = {gate_up.data(), nullptr, panels.panels, SIZE};
    broken.gated_activation = {spoilt.data(), out.data(), {kind, SIZE, nullptr}, SIZE};
    run(target, {whole, broken}, Batch(ROWS));
    Result result;
    result.add(panels.bytes);
    result.add(out);
    return result;
}

// A denormal, and a NaN that would become an infinity if it were rounded as a number.
void spoil_values(float *values) {
    const uint32_t nan = 0x7f800001;
    values[1] = 1e-40f;
    memcpy(values + 2, &nan, sizeof nan);
}

struct Heads {
    int num_heads, num_kv_heads, head_dim, block_size, pairing;
};
constexpr Heads HEADS[] = {
    {9, 3, 64, 64, SL_HALVES}, {4, 4, 16, 32, SL_NEIGHBOURS}, {6, 2, 48, 32, SL_HALVES}, {2, 1, 256, 64, SL_HALVES}};

constexpr int NUM_HEADS = sizeof HEADS / sizeof *HEADS, NUM_RULES = 2;

// A prompt of 300 tokens, then one more of it beside another prompt: chunks, decoding, and more than one split of keys.
// `variant` counts shapes, then formats of the cache, then rules: all keys, or a window, a cap and sinks.
Result attention(const Target &target, int variant) {
    const Heads &h = HEADS[variant % NUM_HEADS];
    const int format = variant / NUM_HEADS % SL_KV_FORMAT_COUNT;
    const bool has_rule = variant / NUM_HEADS / SL_KV_FORMAT_COUNT;
    const int width = (h.num_heads + 2 * h.num_kv_heads) * h.head_dim, out_width = h.num_heads * h.head_dim;
    sl_kv_cache cache{nullptr, 32, h.block_size, h.num_kv_heads, h.head_dim, format, 0};
    const Buffer<uint8_t> blocks(sl_kv_cache_bytes(&cache));
    cache.blocks = blocks.data();
    const Values qkv((int64_t)MAX_TOKENS * width, 10), cosines(MAX_TOKENS * h.head_dim / 2, 11),
        sines(MAX_TOKENS * h.head_dim / 2, 12), sinks(h.num_heads, 14);
    const Buffer<uint16_t> queries((int64_t)MAX_TOKENS * out_width);
    const Buffer<float> out((int64_t)MAX_TOKENS * out_width);
    // As int8 a NaN goes into its scale, where it has the processor's own bits.
    if (cache.format == SL_KV_BF16) spoil_values(qkv.data() + (h.num_heads + h.num_kv_heads) * h.head_dim);
    sl_op rotate = op_of(SL_OP_ROTATE_STORE), attend = op_of(SL_OP_ATTENTION);
    rotate.rotate_store = {qkv.data(), width,      queries.data(), cosines.data(), sines.data(),
                           MAX_TOKENS, h.head_dim, h.pairing,      h.num_heads,    cache};
    attend.attention.queries = queries.data();
    attend.attention.cache = cache;
    attend.attention.out = out.data();
    attend.attention.num_heads = h.num_heads;
    attend.attention.scale = 0.125f;
    if (has_rule) attend.attention.window = 70, attend.attention.softcap = 2.5f, attend.attention.sinks = sinks.data();
    Batch prompt(0), more(0), alone(0);
    prompt.add_sequence(300, 300, 0, h.block_size);
    more.add_sequence(301, 1, 0, h.block_size);
    more.add_sequence(20, 20, 16, h.block_size);
    alone.add_sequence(302, 1, 0, h.block_size);
    Result result;
    for (const Batch *batch : {&prompt, &more, &alone}) {
        run(target, {rotate, attend}, *batch);
        result.add(out);
    }
    result.add(queries);
    result.add(blocks);
    return result;
}

// Tokens of every kind of row are routed, then the odd experts compute what they get.
Result mixture(const Target &target, int format) {
    constexpr int HIDDEN = 100, WIDTH = 48, ROWS = 41, EXPERTS = 12, ACTIVE = 3, HERE = EXPERTS / 2;
    Values x(ROWS * HIDDEN, 15);
    spoil(x, ROWS, HIDDEN);
    const Values router(EXPERTS * HIDDEN, 16), bias(EXPERTS, 17);
    const Matrix gate_up(format, 2 * WIDTH, HIDDEN, 18), down(format, HIDDEN, WIDTH, 19);
    const Buffer<float> logits(ROWS * EXPERTS), weights(ROWS * ACTIVE), dealt_weights(ROWS * ACTIVE),
        delta(ROWS * HIDDEN);
    const Buffer<int32_t> ids(ROWS * ACTIVE), num_rows(1), numbers(EXPERTS), starts(HERE + 1), rows(ROWS * ACTIVE),
        places(ROWS * ACTIVE), active(HERE), num_active(1);
    const Buffer<int64_t> counts(EXPERTS);
    const Panels inputs(panel_kind(format), ROWS * ACTIVE, HIDDEN), activated(panel_kind(format), ROWS * ACTIVE, WIDTH);
    const Panels rows_alone(panel_kind(format), ROWS, HIDDEN);
    for (int id = 0; id < EXPERTS; id++) numbers[id] = id % 2 ? id / 2 : -1;
    const std::vector<sl_expert> experts(HERE, {gate_up.weight, down.weight});
    const sl_routes routes{ids.data(), weights.data(), num_rows.data(), ROWS, ACTIVE};
    const sl_dealt_rows dealt{starts.data(), rows.data(),   dealt_weights.data(),
                              places.data(), active.data(), num_active.data(),
                              inputs.panels, HERE,          0};
    Result result;
    for (int scoring : {SL_SOFTMAX, SL_SIGMOID}) {
        std::vector<sl_op> ops{op_of(SL_OP_ROUTE), op_of(SL_OP_DEAL_ROWS), op_of(SL_OP_EXPERTS)};
        ops[0].route = {x.data(),
                        HIDDEN,
                        router.data(),
                        bias.data(),
                        logits.data(),
                        counts.data(),
                        routes,
                        HIDDEN,
                        EXPERTS,
                        scoring,
                        1,
                        4,
                        2,
                        2.5f,
                        0};
        ops[1].deal_rows = {x.data(), HIDDEN, routes, numbers.data(), dealt, rows_alone.bytes.data(), EXPERTS, 0};
        ops[2].experts = {routes, dealt, experts.data(), activated.panels, delta.data(), HIDDEN, SL_SILU, 0};
        run(target, ops, Batch(ROWS));
        result.add(logits);
        result.add(weights);
        result.add(ids);
        result.add(counts);
        result.add(delta);
    }
    return result;
}

Result choice(const Target &target, int) {
    constexpr int VOCABULARY = 1003, ROWS = 6, TOP = 5;
    const Values logits(ROWS * VOCABULARY, 13);
    logits[5 * VOCABULARY + 17] = NAN;
    const Buffer<double> temperatures(MAX_SEQS), top_ps(MAX_SEQS), min_ps(MAX_SEQS), logprobs(MAX_SEQS),
        tops(MAX_SEQS * TOP);
    const Buffer<int64_t> top_ks(MAX_SEQS), keys(MAX_SEQS), rows(MAX_SEQS), chosen(MAX_SEQS), top_ids(MAX_SEQS * TOP);
    const Buffer<uint8_t> usable(MAX_SEQS);
    for (int i = 0; i < ROWS; i++) {
        rows[i] = i;
        keys[i] = 1234567 * (i + 1);
        temperatures[i] = 0.5 + 0.25 * i;
        top_ks[i] = i % 2 ? 40 : 0;
        top_ps[i] = i < 3 ? 0.75 : 1;
        min_ps[i] = i == 2 ? 0.0625 : 0;
    }
    sl_op op = op_of(SL_OP_CHOOSE_GREEDY, SL_SAMPLED);
    sl_choice &c = op.choice;
    c.logits = logits.data(), c.logits_stride = c.vocab_size = VOCABULARY, c.num_top = TOP;
    c.temperatures = temperatures.data(), c.top_ks = top_ks.data(), c.top_ps = top_ps.data(), c.min_ps = min_ps.data();
    c.noise_keys = keys.data(), c.drawn_rows = c.logprob_rows = rows.data(), c.chosen_ids = chosen.data();
    c.usable = usable.data(), c.chosen_logprobs = logprobs.data(), c.top_ids = top_ids.data(),
    c.top_logprobs = tops.data();
    Batch batch(ROWS, ROWS);
    batch.header[SL_LOGPROBS] = ROWS;
    Result result;
    for (int drawn : {0, ROWS}) {
        batch.header[SL_DRAWN] = batch.header[SL_CUT] = drawn;
        std::vector<sl_op> ops(3, op);
        ops[1].kind = SL_OP_CHOOSE_DRAWN, ops[2].kind = SL_OP_LOGPROBS;
        run(target, ops, batch);
        result.add(chosen);
        result.add(usable);
        result.add(top_ids);
        // The logarithm is the system's: to 2^-40 two systems agree.
        for (double value : {logprobs[0], logprobs[1], tops[0], tops[7]}) {
            Buffer<int64_t> rounded(1);
            rounded[0] = std::llround(value * 0x1p40);
            result.add(rounded);
        }
    }
    return result;
}

struct Case {
    std::string name;
    Result (*compute)(const Target &, int);
    int variant;
    // With the matrix instructions too: not where the result is panels, whose arrangement is each instruction set's own,
    // nor for bfloat16 weights or caches, whose sums are.
    bool on_amx = true;
};

std::vector<Case> all_cases() {
    std::vector<Case> cases;
    for (int format : FORMATS) {
        const std::string name = FORMAT_NAMES[format];
        cases.push_back({"linear " + name, linear, format, format != SL_BF16});
        cases.push_back({"gated linear " + name, gated_linear, format, false});
        cases.push_back({"embedding " + name, embedding, format});
        cases.push_back({"mixture of experts " + name, mixture, format, format != SL_BF16});
    }
    for (int kind : {SL_INT8, SL_PAIRS}) {
        cases.push_back({"norm and gather, panels " + std::to_string(kind), norm, kind, false});
        cases.push_back({"gated activation, panels " + std::to_string(kind), gated_activation, kind, false});
    }
    for (int variant = 0; variant < NUM_HEADS * SL_KV_FORMAT_COUNT * NUM_RULES; variant++) {
        const std::string heads = std::to_string(HEADS[variant % NUM_HEADS].head_dim);
        const std::string cache = variant / NUM_HEADS % SL_KV_FORMAT_COUNT ? "int8" : "bf16";
        const std::string rule = variant / NUM_HEADS / SL_KV_FORMAT_COUNT ? ", window, cap and sinks" : "";
        const bool on_amx = variant / NUM_HEADS % SL_KV_FORMAT_COUNT != SL_KV_BF16;
        cases.push_back(
            {"rotation and attention, heads of " + heads + ", " + cache + rule, attention, variant, on_amx});
    }
    cases.push_back({"choice", choice, 0});
    return cases;
}

int compare(const Case &one, sl_pool *pool) {
    const Result expected = one.compute({SL_ISA_PORTABLE, 1, pool}, one.variant);
    printf("%016llx  %s\n", (unsigned long long)expected.digest(), one.name.c_str());
    int different = 0;
    for (int isa = 0; isa < SL_ISA_COUNT; isa++) {
        if (!(sl_isa_available() >> isa & 1) || (isa == SL_ISA_AMX && !one.on_amx)) continue;
        for (int num_threads : {1, 2}) {
            const Target target{isa, num_threads, pool};
            if (one.compute(target, one.variant) == expected) continue;
            fprintf(stderr, "%s: %s differs from portable on one thread\n", one.name.c_str(), target.name().c_str());
            different++;
        }
    }
    return different;
}

}  // namespace

int main() {
    std::string names;
    for (int isa = 0; isa < SL_ISA_COUNT; isa++)
        if (sl_isa_available() >> isa & 1) names += std::string(" ") + sl_isa_name(isa);
    fprintf(stderr, "instruction sets:%s; best: %s\n", names.c_str(), sl_isa_name(sl_isa_best()));
    sl_pool *pool = sl_pool_create(2);
    expect(pool, "sl_pool_create");
    int different = 0;
    for (const Case &one : all_cases()) different += compare(one, pool);
    sl_pool_destroy(pool);
    if (different) fail(std::to_string(different) + " results differ");
    return 0;
}
