#include "pool.h"

#include <ctime>

#if defined(__linux__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "pause.h"

namespace shardline {
namespace {

constexpr int64_t SPIN_NS = 50'000;
constexpr int PAUSES_PER_LOOK = 16;  // at the clock, which costs about as much as one pause

int64_t clock_ns(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

#if defined(__linux__)
void tell_name(const char *name) { pthread_setname_np(pthread_self(), name); }
#elif defined(__APPLE__)
void tell_name(const char *name) { pthread_setname_np(name); }
#else
void tell_name(const char *) {}
#endif

// A state: the last thread that may take part, the stage, how many shares it has, and the next of them. 0: no run.
constexpr int SHARE_BITS = 16, STAGE_BITS = 24;
constexpr uint64_t SHARE_MASK = ((uint64_t)1 << SHARE_BITS) - 1, STAGE_MASK = ((uint64_t)1 << STAGE_BITS) - 1;

uint64_t next_share(uint64_t state) { return state & SHARE_MASK; }
uint64_t num_shares(uint64_t state) { return state >> SHARE_BITS & SHARE_MASK; }
uint64_t stage_of(uint64_t state) { return state >> (2 * SHARE_BITS) & STAGE_MASK; }
uint64_t last_thread(uint64_t state) { return state >> (2 * SHARE_BITS + STAGE_BITS); }

uint64_t first_state(uint64_t last_thread, int stage, int shares) {
    return last_thread << (2 * SHARE_BITS + STAGE_BITS) | (uint64_t)stage << (2 * SHARE_BITS) |
           (uint64_t)shares << SHARE_BITS;
}

bool has_share(uint64_t state, int thread) {
    return next_share(state) < num_shares(state) && (uint64_t)thread <= last_thread(state);
}

}  // namespace

int64_t wall_ns() { return clock_ns(CLOCK_MONOTONIC); }
int64_t thread_cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

void Signal::publish(uint32_t value) {
    value_.store(value);
    sleepers_.wake_all(value_);
}

uint32_t Signal::wait_change(uint32_t old) {
    for (int i = 0; i < PAUSES_PER_LOOK; i++) {
        if (read() != old) return read();
        pause_briefly();
    }
    const int64_t start = wall_ns();
    while (read() == old && wall_ns() - start < SPIN_NS)
        for (int i = 0; i < PAUSES_PER_LOOK && read() == old; i++) pause_briefly();
    if (read() == old) sleepers_.sleep_while(value_, old);
    return read();
}

Pool::Pool(int num_threads) : num_threads_(num_threads) {
    for (int thread = 1; thread < num_threads; thread++) threads_.emplace_back([this, thread] { work(thread); });
}

Pool::~Pool() {
    stops_.store(true);
    round_.publish(round_.read() + 1);
    for (std::thread &thread : threads_) thread.join();
}

void Pool::run(Task &task, int num_threads) {
    const int64_t start = wall_ns(), cpu_start = thread_cpu_ns();
    num_runs_++;
    if (num_threads == 1) {
        run_alone(task);
    } else {
        task_ = &task;
        open(0, (uint64_t)num_threads - 1);
        for (;;) {
            const uint32_t round = round_.read();
            const uint64_t state = state_.load(std::memory_order_acquire);
            if (state == 0) break;
            if (!has_share(state, 0)) round_.wait_change(round);
            else take_share(0, state);
        }
    }
    cpu_ns_.fetch_add(thread_cpu_ns() - cpu_start, std::memory_order_relaxed);
    wall_ns_ += wall_ns() - start;
}

void Pool::run_alone(Task &task) {
    for (int stage = 0, shares; (shares = task.begin(stage)) != NO_STAGE; stage++)
        for (int share = 0; share < shares; share++) task.run(0, stage, share);
}

// Only by the thread that has seen all shares of the stage before done, so there is one at a time.
void Pool::open(int stage, uint64_t last_thread) {
    int shares;
    while ((shares = task_->begin(stage)) == 0) stage++;
    num_done_.store(0, std::memory_order_relaxed);
    state_.store(shares == NO_STAGE ? 0 : first_state(last_thread, stage, shares), std::memory_order_release);
    round_.publish(round_.read() + 1);
}

// Computes a share if nobody else was quicker. The state is still the whole truth when it is moved on, whatever run and
// stage that is by then; from there on the run cannot end before this share is done.
bool Pool::take_share(int thread, uint64_t state) {
    if (!state_.compare_exchange_strong(state, state + 1, std::memory_order_acq_rel)) return false;
    const int stage = (int)stage_of(state), shares = (int)num_shares(state);
    task_->run(thread, stage, (int)next_share(state));
    if (num_done_.fetch_add(1, std::memory_order_acq_rel) + 1 == shares) open(stage + 1, last_thread(state));
    return true;
}

void Pool::work(int thread) {
    tell_name("kernels");
    int64_t cpu_start = -1;  // of what was not counted yet
    for (;;) {
        const uint32_t round = round_.read();
        if (stops_.load()) return;
        const uint64_t state = state_.load(std::memory_order_acquire);
        if (has_share(state, thread)) {
            if (cpu_start < 0) cpu_start = thread_cpu_ns();
            take_share(thread, state);
            continue;
        }
        if (state == 0 && cpu_start >= 0) {
            cpu_ns_.fetch_add(thread_cpu_ns() - cpu_start, std::memory_order_relaxed);
            cpu_start = -1;
        }
        round_.wait_change(round);
    }
}

}  // namespace shardline
