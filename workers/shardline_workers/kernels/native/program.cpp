// Programs: recorded steps and their replay.
#include <cstdio>
#include <memory>
#include <new>
#include <vector>

#include "attention_scratch.h"
#include "checks.h"
#include "errors.h"
#include "exchange.h"
#include "isa.h"
#include "layout.h"
#include "pool.h"
#include "shares.h"

struct sl_pool : shardline::Pool {
    using Pool::Pool;
};

namespace shardline {
namespace {

constexpr int32_t MAX_THREADS = 256;
constexpr int64_t MAX_OPS = 1 << 20;
constexpr int64_t SCRATCH_COLUMNS = 64;  // of linear.h
constexpr int64_t ROWS_OF_PART = 512;    // of linear.h: of panels that are worked on at once
constexpr int64_t MAX_PARTIALS = 4096;   // of 72 KB at most, of which a short head touches little

// Memory that starts on a cache line and is not touched before it is used.
template <class T>
class Room {
public:
    explicit Room(int64_t size) : first_(new (std::align_val_t(64)) T[(size_t)size]) {}
    T *at(int64_t place) const { return first_.get() + place; }

private:
    struct Release {
        void operator()(T *first) const { operator delete[](first, std::align_val_t(64)); }
    };
    std::unique_ptr<T[], Release> first_;
};

// What all runs of a program share, with a part for each thread.
class Memory {
public:
    Memory(const StepNeeds &needs, const sl_limits &limits, int max_threads)
        : row_floats_(most_rows(needs, limits) * SCRATCH_COLUMNS),
          num_candidates_(needs.largest_choice + 1),
          num_partials_(needs.attention && max_threads > 1 ? num_partials(needs, limits, max_threads) : 0),
          rows_(row_floats_ * max_threads),
          candidates_(num_candidates_ * max_threads),
          partials_(num_partials_) {}

    Scratch of(int thread) const {
        return {rows_.at(row_floats_ * thread), partials_.at(0), num_partials_,
                candidates_.at(num_candidates_ * thread)};
    }

private:
    static int64_t most_rows(const StepNeeds &needs, const sl_limits &limits) {
        const int64_t of_experts = needs.expert_rows < ROWS_OF_PART ? needs.expert_rows : ROWS_OF_PART;
        if (!needs.linear) return of_experts;
        const int64_t of_step = limits.max_tokens > limits.max_seqs ? limits.max_tokens : limits.max_seqs;
        return of_step > of_experts ? of_step : of_experts;
    }

    // For the longest context, as many items as attention may split at most (see attention.h); but no more than
    // MAX_PARTIALS.
    static int64_t num_partials(const StepNeeds &needs, const sl_limits &limits, int max_threads) {
        const int64_t splits = (int64_t)limits.max_blocks * needs.block_size / SPLIT + 1;
        return 2 * max_threads * splits < MAX_PARTIALS ? 2 * max_threads * splits : MAX_PARTIALS;
    }

    const int64_t row_floats_, num_candidates_, num_partials_;
    const Room<float> rows_;
    const Room<Candidate> candidates_;
    const Room<Softmax> partials_;
};

}  // namespace
}  // namespace shardline

using namespace shardline;

struct sl_program {
    std::vector<sl_op> ops;
    StepNeeds needs;
    sl_limits limits;
    const Operations *operations;
    int32_t max_threads;
    std::unique_ptr<Memory> memory;
};

namespace {

// One run of a program: each operation is as many stages as it has phases.
class Run final : public Task {
public:
    Run(const sl_program &program, const sl_step &step, int num_threads, int64_t *op_ns)
        : program_(program), step_(step), num_threads_(num_threads), op_ns_(op_ns) {}

    int begin(int stage) override {
        if (op_ns_) book_time(stage);
        const size_t number = (size_t)stage / NUM_PHASES;
        if (number == program_.ops.size() || status_ != SL_OK) return NO_STAGE;
        const Sharing sharing{num_threads_, program_.memory->of(0).num_partials, program_.operations->item_rows};
        return num_shares_ = num_shares(program_.ops[number], stage % NUM_PHASES, step_, sharing);
    }

    void run(int thread, int stage, int share) override {
        const FloatingPointMode mode;
        const sl_op &op = program_.ops[(size_t)(stage / NUM_PHASES)];
        if (is_exchange(op, stage % NUM_PHASES)) return note(exchange(op, step_));
        Work work{step_,
                  share,
                  num_shares_,
                  stage % NUM_PHASES,
                  num_threads_,
                  program_.limits.max_blocks,
                  program_.memory->of(thread)};
        program_.operations->run[op.kind](op, work);
    }

    // SL_OK, or what a call to other ranks ended with; for the caller, whichever thread made it.
    int outcome() const { return status_ == SL_OK ? SL_OK : refuse(status_, "%s", text_); }

private:
    // By the only thread that runs then. Texts of errors are kept for each thread.
    void note(int status) {
        if (status == SL_OK) return;
        status_ = status;
        snprintf(text_, sizeof text_, "%s", sl_last_error());
    }

    // Of the stage before.
    void book_time(int stage) {
        const int64_t now = wall_ns();
        if (stage > 0) op_ns_[(stage - 1) / NUM_PHASES] += now - began_ns_;
        began_ns_ = now;
    }

    const sl_program &program_;
    const sl_step &step_;
    const int num_threads_;
    int64_t *const op_ns_;
    int num_shares_ = 0;  // of the stage that runs
    int64_t began_ns_ = 0;
    int status_ = SL_OK;
    char text_[256] = "";
};

int check_program(const sl_op *ops, int64_t num_ops, const sl_limits *limits, int32_t isa, int32_t max_threads) {
    if (!ops || num_ops < 1 || num_ops > MAX_OPS)
        return refuse(SL_BAD_ARGUMENT, "ops is NULL, or num_ops, %lld, not 1 … %lld", (long long)num_ops,
                      (long long)MAX_OPS);
    if (!isa_is_available(isa)) return refuse(SL_BAD_ARGUMENT, "instruction set %d is not available here", isa);
    if (max_threads < 1 || max_threads > MAX_THREADS)
        return refuse(SL_BAD_ARGUMENT, "max_threads is %d; it must be 1 … %d", max_threads, MAX_THREADS);
    return check_limits(limits);
}

sl_program *make_program(const sl_op *ops, int64_t num_ops, const sl_limits &limits, int32_t isa, int32_t max_threads) {
    auto program = std::make_unique<sl_program>();
    program->ops.assign(ops, ops + num_ops);
    for (int64_t i = 0; i < num_ops; i++)
        if (check_op(program->ops[(size_t)i], i, program->needs)) return nullptr;
    program->limits = limits;
    program->operations = &operations_of(isa);
    program->max_threads = max_threads;
    program->memory = std::make_unique<Memory>(program->needs, limits, max_threads);
    return program.release();
}

}  // namespace

int64_t sl_op_bytes() { return sizeof(sl_op); }

sl_pool *sl_pool_create(int32_t num_threads) {
    if (num_threads < 1 || num_threads > MAX_THREADS) {
        refuse(SL_BAD_ARGUMENT, "num_threads is %d; it must be 1 … %d", num_threads, MAX_THREADS);
        return nullptr;
    }
    try {
        return new sl_pool(num_threads);
    } catch (const std::exception &error) {
        refuse(SL_NO_MEMORY, "%d threads cannot be started: %s", num_threads, error.what());
        return nullptr;
    }
}

void sl_pool_destroy(sl_pool *pool) { delete pool; }

int sl_pool_read_stats(const sl_pool *pool, sl_pool_stats *stats) {
    if (!pool || !stats) return refuse(SL_BAD_ARGUMENT, "pool or stats is NULL");
    *stats = {pool->num_runs(), pool->total_wall_ns(), pool->total_cpu_ns()};
    return SL_OK;
}

sl_program *sl_program_create(const sl_op *ops, int64_t num_ops, const sl_limits *limits, int32_t isa,
                              int32_t max_threads) {
    if (check_program(ops, num_ops, limits, isa, max_threads)) return nullptr;
    try {
        return make_program(ops, num_ops, *limits, isa, max_threads);
    } catch (const std::bad_alloc &) {
        refuse(SL_NO_MEMORY, "no memory for a program of %lld operations", (long long)num_ops);
        return nullptr;
    }
}

void sl_program_destroy(sl_program *program) { delete program; }

int sl_program_run(sl_program *program, sl_pool *pool, const sl_step *step, int32_t num_threads, int64_t *op_ns) {
    if (!program || !pool) return refuse(SL_BAD_ARGUMENT, "program or pool is NULL");
    const int most = program->max_threads < pool->num_threads() ? program->max_threads : pool->num_threads();
    if (num_threads < 1 || num_threads > most)
        return refuse(SL_BAD_ARGUMENT, "num_threads is %d; it must be 1 … %d", num_threads, most);
    if (int status = check_step(step, program->needs, program->limits)) return status;
    Run run(*program, *step, num_threads, op_ns);
    pool->run(run, num_threads);
    return run.outcome();
}
