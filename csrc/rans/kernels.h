// The inner loops of the coder, one file per instruction set behind this interface: plain data in, plain data out.
//
// A kernel works on whole groups, which are one symbol for each lane, and leaves rare cases to its caller: it stops
// before a group that has an escape or may need a word beyond the payload. The same scalar code then does that group
// for every instruction set, so all of them raise the same errors. The files behind this interface are compiled with
// instruction-set flags: of an inline function or template with external linkage the linker could keep their version
// for all callers, and crash processors without these instructions.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sodec::rans {

// One table of a set. A set has 256, so that every index is valid, SKIP included; unused ones are zeros.
struct TableView {
    uint32_t first;   // number of its symbol 0 among those of all tables
    int16_t minimum;  // the value of symbol 0
    uint16_t escape;  // number of values; the number of the escape among the table's symbols
};

// A symbol's interval, with a reciprocal for dividing by its frequency: bits 0-31 reciprocal, 32-47 start, 48-63
// frequency - 1.
// With r = min(floor(2^32 / frequency), 2^32 - 1), floor(x r / 2^32) is floor(x / frequency) or 1 less for any 32-bit
// x.
typedef uint64_t SymbolEntry;

// A table's slots are divided into 2^bucket_bits buckets; this is what a slot's bucket leads to.
// With at most two symbols, none of them the escape: bits 0-15 the slot where the second begins (the cut), 16-31 and
// 32-47 the frequencies - 1 of the first and the second, 48-63 the value of the first.
// Otherwise: bits 48-63 kManyValue, bits 0-23 the number of the bucket's first symbol among those of all tables, 24-47
// how many symbols follow it.
typedef uint64_t BucketEntry;
constexpr int16_t kManyValue = -32768;

// 64 tables take 128 KiB. Decoding 1.3 M symbols of 0.25 bit with 64 lanes of AVX-512 (Zen 4): 6 bits 670 M symbols a
// second, 7 bits 1030 M, 8 bits 1080 M, 9 bits 1110 M, which would be slower with a cold or smaller cache.
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

constexpr size_t kFrontRoom = 16;  // words before the front that a kernel may overwrite

// Looks up the ids of those of n elements that are not SKIP, in order: the numbers of their symbols among those of all
// tables, or, for a value outside its table, kEscapeId + its position among the n. Returns their number; up to
// kDenseRoom ids after them may be overwritten.
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

// Decodes groups from the first on, encodes groups from the last on; returns how many. Updates next, front and states.
typedef size_t (*DecodeGroups)(DecodeRun* run);
typedef size_t (*EncodeGroups)(EncodeRun* run);

// Copies the indexes that are not SKIP, in order, to `dense`; returns their number. Up to kDenseRoom bytes after them
// may be overwritten.
typedef size_t (*Compact)(const uint8_t* indexes, size_t n, uint8_t* dense);
// The reverse for values, with 0 where an index is SKIP. Up to kDenseRoom values after the dense ones may be read.
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
