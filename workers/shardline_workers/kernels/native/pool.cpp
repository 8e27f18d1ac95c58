#include "pool.h"

#include "work.h"

#include <ctime>

#if defined(__linux__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace shardline {
namespace {

constexpr int64_t SPIN_NS = 50'000;
constexpr int PAUSES_PER_LOOK = 16;  // at the clock, which costs about as much as one pause

int64_t clock_ns(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

#if defined(__linux__)
void tell_name(const char *name) { pthread_setname_np(pthread_self(), name); }
#elif defined(__APPLE__)
void tell_name(const char *name) { pthread_setname_np(name); }
#else
void tell_name(const char *) {}
#endif

constexpr uint32_t THREAD_BITS = 8;
constexpr uint32_t STOP = 0;  // runs count from 1

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

void Barrier::wait() {
    // Read before it arrives: afterwards the others may go, and the next run may have another number.
    const int num_others = num_threads_ - 1;
    if (num_others == 0) return;
    const uint32_t round = round_.read();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == num_others) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.publish(round + 1);
    } else {
        round_.wait_change(round);
    }
}

void wait_at(Barrier &barrier) { barrier.wait(); }

Pool::Pool(int num_threads) : num_threads_(num_threads) {
    job_.publish(1 << THREAD_BITS);
    for (int thread = 1; thread < num_threads; thread++) threads_.emplace_back([this, thread] { work(thread); });
}

Pool::~Pool() {
    job_.publish(STOP);
    for (std::thread &thread : threads_) thread.join();
}

void Pool::run(Task &task, int num_threads) {
    const int64_t start = wall_ns();
    num_runs_++;
    if (num_threads > 1) {
        task_ = &task;
        barrier_.set_num_threads(num_threads);
        const uint32_t number = (job_.read() >> THREAD_BITS) + 1;
        job_.publish((number << THREAD_BITS ? number << THREAD_BITS : 1 << THREAD_BITS) | (uint32_t)(num_threads - 1));
    } else {
        barrier_.set_num_threads(1);
    }
    task.run(0);
    wall_ns_ += wall_ns() - start;
}

void Pool::work(int thread) {
    tell_name("kernels");
    for (uint32_t job = 1 << THREAD_BITS;;) {
        job = job_.wait_change(job);
        if (job == STOP) return;
        if ((uint32_t)thread <= (job & ((1 << THREAD_BITS) - 1))) task_->run(thread);
    }
}

}  // namespace shardline
