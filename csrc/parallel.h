// Work on many equal items, in bands side by side.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace sodec {

// work(first, last) for the items 0..count - 1, in at most `threads` bands of at least `least` items. What the work
// throws is thrown here once all have ended. A thread takes about 20 us to begin, so there is no pool of them.
template <class Work>
void in_bands(size_t count, size_t threads, size_t least, const Work& work) {
    const size_t bands = std::max<size_t>(1, std::min(threads, count / std::max<size_t>(1, least)));
    std::vector<std::exception_ptr> errors(bands);
    const auto guarded = [&](size_t band, size_t last) {
        try {
            work(count * band / bands, count * last / bands);
        } catch (...) {
            errors[band] = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(bands);
    size_t begun = 1;
    try {
        for (; begun < bands; ++begun) others.emplace_back(guarded, begun, begun + 1);
    } catch (const std::system_error&) {  // no more threads: the rest is done here
        guarded(begun, bands);
    }
    guarded(0, 1);
    for (std::thread& other : others) other.join();
    for (const std::exception_ptr& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

}  // namespace sodec
