// The threads that run programs: each takes the next share of the stage that runs, until all are taken.
//
// Nobody waits for a thread, only for shares. A thread that another process keeps from its core between two shares is
// not missed, and one that is late finds the stage that runs by then.
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

// What is to be run: stages, one after the other, of shares that any thread computes in any order.
class Task {
public:
    // Called once for each stage, when all before it are done: how many shares it has, 0 … MAX_SHARES; or NO_STAGE.
    virtual int begin(int stage) = 0;
    virtual void run(int thread, int stage, int share) = 0;

protected:
    ~Task() = default;
};

constexpr int NO_STAGE = -1;  // that was the last one
constexpr int MAX_SHARES = (1 << 16) - 1;

class Pool {
public:
    explicit Pool(int num_threads);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    int num_threads() const { return num_threads_; }
    void run(Task &task, int num_threads);  // the caller is thread 0

    int64_t num_runs() const { return num_runs_; }
    int64_t total_wall_ns() const { return wall_ns_; }
    int64_t total_cpu_ns() const { return cpu_ns_.load(std::memory_order_relaxed); }

private:
    void work(int thread);
    bool take_share(int thread, uint64_t state);
    void open(int stage, uint64_t last_thread);
    static void run_alone(Task &task);

    const int num_threads_;
    // The stage that runs and the next of its shares, in one word: whoever moves that on by one owns a share, and knows
    // that the task is still there. See pool.cpp.
    alignas(64) std::atomic<uint64_t> state_{0};
    alignas(64) std::atomic<int> num_done_{0};  // shares of the stage
    Signal round_;                              // a stage was opened, or the run is over
    std::atomic<bool> stops_{false};
    Task *task_ = nullptr;
    int64_t num_runs_ = 0, wall_ns_ = 0;
    std::atomic<int64_t> cpu_ns_{0};
    std::vector<std::thread> threads_;
};

}  // namespace shardline
