// Decoding of one symbol in scalar code, which the kernels of all instruction sets use too. Plain data and internal
// linkage, as kernels.h explains.
#pragma once

#include <stdint.h>
#ifdef _MSC_VER
#include <intrin.h>
#endif

#include "kernels.h"

namespace sodec::rans {

static inline int first_lane(unsigned mask) {  // not 0
#ifdef _MSC_VER
    unsigned long lane;
    _BitScanForward(&lane, mask);
    return static_cast<int>(lane);
#else
    return __builtin_ctz(mask);
#endif
}

constexpr int32_t kEscape = -32768;  // returned by read_symbol for an escape; no symbol has this value

// The symbol at a slot of a bucket that holds many, by binary search among these.
static inline uint32_t find_symbol(const SymbolEntry* symbols, BucketEntry bucket, uint32_t slot) {
    uint32_t low = bucket & 0xFFFFFF;
    uint32_t high = low + ((bucket >> 24) & 0xFFFFFF);
    while (low < high) {
        const uint32_t middle = (low + high + 1) / 2;
        if (((symbols[middle] >> 32) & 0xFFFF) <= slot) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

// D(x): takes one symbol from the state, which the caller must renormalise. Returns its value, or kEscape.
static inline int32_t read_symbol(const DecodeRun& run, uint8_t index, uint32_t& state) {
    const uint32_t slot = state & ((1u << run.precision) - 1);
    const uint32_t quotient = state >> run.precision;
    const BucketEntry bucket =
        run.buckets[(static_cast<uint32_t>(index) << run.bucket_bits) + (slot >> (run.precision - run.bucket_bits))];
    const int32_t value = static_cast<int16_t>(bucket >> 48);
    if (value != kManyValue) {
        const uint32_t cut = bucket & 0xFFFF;
        const uint32_t before = ((bucket >> 16) & 0xFFFF) + 1;
        const uint32_t after = ((bucket >> 32) & 0xFFFF) + 1;
        const bool second = slot >= cut;
        state = (second ? after : before) * quotient + slot - cut + (second ? 0 : before);
        return value + second;
    }
    const uint32_t id = find_symbol(run.symbols, bucket, slot);
    const TableView& table = run.tables[index];
    const SymbolEntry symbol = run.symbols[id];
    state = (static_cast<uint32_t>(symbol >> 48) + 1) * quotient + slot - ((symbol >> 32) & 0xFFFF);
    const uint32_t number = id - table.first;
    return number == table.escape ? kEscape : table.minimum + static_cast<int32_t>(number);
}

}  // namespace sodec::rans
