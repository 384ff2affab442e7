// rANS with lanes: the numbers that encoder and decoder share. FORMAT.md, section 4, says the same in prose.
//
// A lane is a rANS coder of its own with a 32-bit state x; coded symbol i of a section belongs to lane i mod L. With
// precision P, a table gives symbol s the frequency f, of a total of 2^P, and the cumulative frequency c before it:
//
//   C(s, x) = (x / f << P) + x % f + c       encode, after moving the low 16 bits of x out if x >= f << (32 - P)
//   D(x)    = s, f * (x >> P) + slot - c     decode, where slot = x & (2^P - 1) and c <= slot < c + f;
//                                            then x = x << 16 | next word, if x < 2^16
//
// Words have 16 bits because then P <= 16 needs at most one word per symbol: renormalising is a comparison and not a
// loop, and a vector of lanes does it with one mask. All lanes share one sequence of words; the lanes of a group take
// theirs in order, so no lane needs a length. The encoder goes backwards from the last symbol, and writes words from
// the back of a buffer to its front. A value that its table does not hold is sent as the table's last symbol, the
// escape, and an Exp-Golomb code in the same lane, of bits that are equally likely.
//
// A payload is: one header byte, the lane states as a packed bit sequence, then the words, little-endian, in the order
// in which the decoder reads them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sodec::rans {

constexpr uint32_t kLow = 1u << 16;  // between symbols a lane's state is in [kLow, 2^32)
constexpr int kMaxPrecision = 16;    // so that one 16-bit word per symbol is always enough
constexpr int kMaxLanesLog2 = 6;
constexpr int kMaxLanes = 1 << kMaxLanesLog2;
constexpr int kMaxValue = 32767;
constexpr int kMaxTables = 255;
constexpr int kMaxSymbols = 4097;  // of one table: 4096 values and the escape
constexpr uint8_t kSkip = 255;     // a table index that means: the value is 0 and costs nothing

// The state from which encoding starts and to which decoding must return. A single lane starts from 1, and its state
// may fall below kLow once no words are left, which saves two bytes in the smallest payloads. With several lanes a
// decoder could not distinguish that from a missing word of another lane, so they start from kLow.
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
