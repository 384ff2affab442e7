// What AVX2 has no instruction for: moving the lanes of a mask together, and apart again, by look-up.
#pragma once

#include <stdint.h>

namespace sodec::rans {

// Eight bytes for each mask of eight lanes, byte i in bits 8 i.
struct LaneOrders {
    uint64_t of[256];
};

// Byte i: the number of lanes below i that are in the mask.
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

// The lanes of the mask in order: from byte 0 on, or up to byte 7. The other bytes are 0.
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
