// Orders of lanes for compressing and expanding a vector by a mask, which AVX2 has no instructions for: tables for its
// shuffles.
#pragma once

#include <stdint.h>

namespace sodec::rans {

// For each mask of eight lanes a number from 0 to 7 per lane, that of lane i in bits 8 i to 8 i + 7.
struct LaneOrders {
    uint64_t of[256];
};

// Expand: at lane i the number of lanes below i that are in the mask.
static constexpr LaneOrders make_ranks() {
    LaneOrders orders{};
    for (unsigned mask = 0; mask < 256; ++mask) {
        uint64_t rank = 0;
        for (unsigned lane = 0; lane < 8; ++lane) {
            orders.of[mask] |= rank << (8 * lane);
            rank += (mask >> lane) & 1;
        }
    }
    return orders;
}

// Compress: the lanes of the mask in order, from lane 0 on or up to lane 7. The others are 0.
static constexpr LaneOrders make_members(bool to_the_top) {
    LaneOrders orders{};
    for (unsigned mask = 0; mask < 256; ++mask) {
        unsigned count = 0;
        for (unsigned lane = 0; lane < 8; ++lane) count += (mask >> lane) & 1;
        unsigned at = to_the_top ? 8 - count : 0;
        for (unsigned lane = 0; lane < 8; ++lane) {
            if ((mask >> lane) & 1) orders.of[mask] |= uint64_t{lane} << (8 * at++);
        }
    }
    return orders;
}

}  // namespace sodec::rans
