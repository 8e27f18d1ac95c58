// The threads that run programs, and the barrier between operations.
//
// Waiting is a short spin and then sleep. The spin (50 µs) covers what a balanced operation takes; threads that spin
// for longer than that collapse as soon as another process wants their core (125 ms a step instead of 4, measured).
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "sleepers.h"

namespace shardline {

int64_t wall_ns();
int64_t thread_cpu_ns();

// What threads wait on: a number that changes. Spins, then sleeps; gives the new number.
class Signal {
public:
    uint32_t read() const { return value_.load(std::memory_order_acquire); }
    void publish(uint32_t value);  // and wakes all that sleep
    uint32_t wait_change(uint32_t old);

private:
    alignas(64) std::atomic<uint32_t> value_{0};
    alignas(64) Sleepers sleepers_;
};

// All of a run's threads meet here. Whoever comes last lets the others go.
class Barrier {
public:
    void set_num_threads(int num_threads) { num_threads_ = num_threads; }  // only while nobody waits
    void wait();

private:
    int num_threads_ = 1;
    alignas(64) std::atomic<int> arrived_{0};
    Signal round_;
};

// What every thread of a run does; the last thing in it is a wait at the pool's barrier.
class Task {
public:
    virtual void run(int thread) = 0;

protected:
    ~Task() = default;
};

class Pool {
public:
    explicit Pool(int num_threads);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int num_threads() const { return num_threads_; }
    Barrier &barrier() { return barrier_; }
    void run(Task &task, int num_threads);  // the caller is thread 0
    void add_cpu(int64_t ns) { cpu_ns_.fetch_add(ns, std::memory_order_relaxed); }

    int64_t num_runs() const { return num_runs_; }
    int64_t total_wall_ns() const { return wall_ns_; }
    int64_t total_cpu_ns() const { return cpu_ns_.load(std::memory_order_relaxed); }

private:
    void work(int thread);

    const int num_threads_;
    Barrier barrier_;
    // Number of the run, and how many threads take part: in one word, so that a thread that wakes late never takes one
    // run's number for the other's threads.
    Signal job_;
    Task *task_ = nullptr;
    int64_t num_runs_ = 0, wall_ns_ = 0;
    std::atomic<int64_t> cpu_ns_{0};
    std::vector<std::thread> threads_;
};

}  // namespace shardline
