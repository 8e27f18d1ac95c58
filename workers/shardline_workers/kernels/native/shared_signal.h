// A number in shared memory that counts up, and on which other processes wait. It has no owner: zeros are a new one, and
// a process that is killed while it waits costs the others a system call each time, nothing more.
#pragma once
#include <atomic>
#include <cstdint>

namespace shardline {

class alignas(64) SharedSignal {
public:
    // Numbers wrap around; nobody is 2^31 behind.
    bool has_reached(uint32_t number) const {
        return (int32_t)(number_.load(std::memory_order_acquire) - number) >= 0;
    }
    void publish(uint32_t number);  // everything written before is seen by whoever has seen the number
    bool spin(uint32_t number, int64_t spin_ns) const;        // whether it was reached
    void sleep(uint32_t number, int64_t longest_ns);          // until it is reached, or woken, or so long

private:
    std::atomic<uint32_t> number_;
    std::atomic<uint32_t> num_sleepers_;
};

static_assert(std::atomic<uint32_t>::is_always_lock_free, "a lock would lie in one process only");

}  // namespace shardline
