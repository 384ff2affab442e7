// The inner loops of the coder, one file per instruction set behind this interface: plain data in, plain data out.
//
// A kernel works on whole groups, a symbol for each lane, and leaves the unusual to its caller: it stops before a
// group that holds an escaped value or might need a word that is not there. steps.h has the one scalar code for these,
// so every instruction set raises the same errors. The files behind it are compiled with instruction-set flags: an
// inline function or template with external linkage could be the one that the linker keeps for everybody.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sodec::rans {

// Every table of a set, 256 of them so that any index finds one (SKIP included); those beyond the set's are zeros.
struct TableView {
    uint32_t first;   // number of its symbol 0 among those of all tables
    int16_t minimum;  // the value of symbol 0
    uint16_t escape;  // number of values; the number of the escape among the table's symbols
};

// A symbol's interval and what its division needs: bits 0-31 reciprocal, 32-47 start, 48-63 frequency - 1.
// With r = min(floor(2^32 / frequency), 2^32 - 1), floor(x r / 2^32) is floor(x / frequency) or 1 less for any 32-bit
// x.
typedef uint64_t SymbolEntry;

// What a slot's bucket knows. A table's slots are divided into 2^bucket_bits buckets.
// Two symbols at most, no escape: bits 0-15 cut, 16-31 and 32-47 the frequencies - 1 of the symbol that ends at the cut
// and of the next, 48-63 the value of the first. Else kManyValue in bits 48-63, bits 0-23 the number of the bucket's
// first symbol among those of all tables, 24-47 how many follow it.
typedef uint64_t BucketEntry;
constexpr int16_t kManyValue = -32768;

// 64 tables take 128 KiB. Decoding 1.3 M symbols of 0.25 bit with 64 lanes of AVX-512 (Zen 4): 6 bits 670 M symbols a
// second, 7 bits 1030 M, 8 bits 1080 M, 9 bits 1110 M; cold, and with less cache, 9 would lose.
constexpr int kBucketBits = 8;

struct DecodeRun {
    const BucketEntry* buckets;
    const SymbolEntry* symbols;
    const TableView* tables;
    int bucket_bits;
    int precision;
    int lanes;
    uint32_t* states;        // [lanes]
    const uint8_t* next;     // words
    const uint8_t* end;      // of the payload
    const uint8_t* indexes;  // of the tables, without SKIP: [groups * lanes]
    int16_t* values;         // [groups * lanes]
    size_t groups;
};

struct EncodeRun {
    const SymbolEntry* symbols;
    int precision;
    int lanes;
    uint32_t* states;     // [lanes]
    uint16_t* front;      // words are put before it; there is room for `groups * lanes` of them and kFrontRoom more
    const uint32_t* ids;  // numbers of symbols among those of all tables: [groups * lanes]
    size_t groups;
};

constexpr size_t kFrontRoom = 16;  // words that a kernel may write before those that it puts

// The ids of n elements that are not SKIP, in order: the numbers of their symbols among those of all tables. That of a
// value outside its table is kEscapeId + its position in the n. Returns how many; up to kDenseRoom ids behind them may
// be written too.
struct LookUpRun {
    const TableView* tables;  // 256
    int count;                // of tables
    const uint8_t* indexes;   // of tables, or SKIP: [n]
    const int16_t* values;    // [n]
    size_t n;
    uint32_t* ids;
};
typedef size_t (*LookUp)(const LookUpRun* run);
constexpr uint32_t kEscapeId = 1u << 31;

// Groups decoded from the first on, groups encoded from the last on. next, front and states are brought up to date.
typedef size_t (*DecodeGroups)(DecodeRun* run);
typedef size_t (*EncodeGroups)(EncodeRun* run);

// The entries of `indexes` that are not SKIP, in order, to `dense`; returns their number. Up to kDenseRoom bytes
// behind them may be written too.
typedef size_t (*Compact)(const uint8_t* indexes, size_t n, uint8_t* dense);
// The reverse for values: 0 where indexes say SKIP. Up to kDenseRoom values behind the dense ones may be read.
typedef void (*Expand)(const uint8_t* indexes, size_t n, const int16_t* dense, int16_t* values);
constexpr size_t kDenseRoom = 64;

size_t decode_groups_avx2(DecodeRun* run);
size_t decode_groups_avx512(DecodeRun* run);
size_t encode_groups_avx2(EncodeRun* run);
size_t encode_groups_avx512(EncodeRun* run);
size_t look_up_portable(const LookUpRun* run);
size_t look_up_rest(const LookUpRun* run, size_t from, uint32_t* ids);  // the scalar end of a vector's loop
size_t look_up_avx2(const LookUpRun* run);
size_t look_up_avx512(const LookUpRun* run);
size_t compact_portable(const uint8_t* indexes, size_t n, uint8_t* dense);
size_t compact_avx2(const uint8_t* indexes, size_t n, uint8_t* dense);
size_t compact_avx512(const uint8_t* indexes, size_t n, uint8_t* dense);
void expand_portable(const uint8_t* indexes, size_t n, const int16_t* dense, int16_t* values);
void expand_avx2(const uint8_t* indexes, size_t n, const int16_t* dense, int16_t* values);
void expand_avx512(const uint8_t* indexes, size_t n, const int16_t* dense, int16_t* values);

}  // namespace sodec::rans
