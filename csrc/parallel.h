// Work on many equal items, side by side.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace sodec {

// OpenMP's GOMP_parallel(function, data, threads, flags), which calls function(data) on each thread of a team.
using OpenMpParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// That of the library whose threads are to be used, or null. PyTorch's threads wait for work in a loop, so threads of
// our own would share the cores with them: on two cores convolutions took 205 ms by these and 137 by PyTorch's.
inline std::atomic<OpenMpParallel> openmp_parallel{nullptr};

// each(0), .. each(count - 1), each on a thread of its own if there are as many. What one throws is thrown here once
// all have ended.
template <class Each>
void side_by_side(size_t count, const Each& each) {
    struct Team {
        const Each& each;
        const size_t count;
        std::atomic<size_t> next;
        std::mutex mutex;
        std::exception_ptr error;

        void work() {
            for (size_t i = next++; i < count; i = next++) {
                try {
                    each(i);
                } catch (...) {
                    const std::lock_guard<std::mutex> lock(mutex);
                    error = std::current_exception();
                }
            }
        }
    };
    Team team{each, count, {0}, {}, {}};
    if (count < 2) {
        team.work();
    } else if (const OpenMpParallel parallel = openmp_parallel) {
        parallel([](void* data) { static_cast<Team*>(data)->work(); }, &team, static_cast<unsigned>(count), 0);
    } else {  // a thread takes about 20 us to begin, so there is no pool of them
        std::vector<std::thread> others;
        others.reserve(count - 1);
        try {
            while (others.size() < count - 1) others.emplace_back(&Team::work, &team);
        } catch (const std::system_error&) {  // no more threads: those that there are do the rest
        }
        team.work();
        for (std::thread& other : others) other.join();
    }
    if (team.error) std::rethrow_exception(team.error);
}

// work(first, last) for the items 0..count - 1, in at most `threads` bands of at least `least` items.
template <class Work>
void in_bands(size_t count, size_t threads, size_t least, const Work& work) {
    const size_t bands = std::max<size_t>(1, std::min(threads, count / std::max<size_t>(1, least)));
    side_by_side(bands, [&](size_t band) { work(count * band / bands, count * (band + 1) / bands); });
}

}  // namespace sodec
