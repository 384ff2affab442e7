// The numbers and the elementary steps of the payload format, shared by encoder and decoder.
//
// FORMAT.md says the same in prose. A payload is: one header byte, the lane states as a packed bit sequence,
// then 16-bit little-endian words in the order in which the decoder reads them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sodec::rans {

constexpr uint32_t kLow = 1u << 16;  // a lane's state is kept in [kLow, 2^32)
constexpr int kMaxPrecision = 16;    // so that one 16-bit word per symbol always suffices
constexpr int kMaxLanesLog2 = 6;
constexpr int kMaxLanes = 1 << kMaxLanesLog2;
constexpr int kMaxValue = 32767;
constexpr int kMaxTables = 255;
constexpr int kMaxSymbols = 4097;  // of one table: 4096 values and the escape
constexpr uint8_t kSkip = 255;     // a table index that means: the value is 0 and costs nothing

// The state that encoding starts from and decoding must return to. A single lane starts from 1, and its state may
// run below kLow once no words are left, which saves two bytes where they count most. With several lanes that
// can't be told from a missing word of another lane, so they start from kLow.
constexpr uint32_t initial_state(int lanes) { return lanes == 1 ? 1 : kLow; }

// States are written as the exponent e = floor(log2(state)) - base, in `exponent_bits`, then the state's lower
// e + base bits, most significant first.
constexpr int state_base(int lanes) { return lanes == 1 ? 0 : 16; }
constexpr int exponent_bits(int lanes) { return lanes == 1 ? 5 : 4; }

// Header: bits 0-2 log2 of the lanes, bits 3-6 precision - 1, bit 7 zero.
constexpr uint8_t header_byte(int lanes_log2, int precision) {
    return static_cast<uint8_t>(lanes_log2 | ((precision - 1) << 3));
}

// An escaped value v of a table with values minimum..maximum is sent as u = 2 * (v - maximum - 1) above it,
// u = 2 * (minimum - 1 - v) + 1 below it; u + 1 has a highest bit k <= 16: k ones, a zero unless k is 16,
// then the k lower bits of u + 1 in one uniform step. Every one or zero is a uniform step of one bit.
constexpr int kMaxPrefix = 16;

inline int floor_log2(uint32_t value) {
    int n = 0;
    for (int step = 16; step > 0; step /= 2) {
        if (value >> step) {
            value >>= step;
            n += step;
        }
    }
    return n;
}

struct PayloadInfo {
    int lanes;
    int precision;
    size_t state_bytes;  // the header byte and the lane states: where the words begin
};

}  // namespace sodec::rans
