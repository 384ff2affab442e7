#include "decoder.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "../errors.h"
#include "dispatch.h"
#include "scalar_coder.h"

namespace sodec::rans {
namespace {

// Bits of a byte range, most significant first.
struct BitReader {
    const uint8_t* data;
    size_t bits;
    size_t at = 0;

    uint32_t take(int width) {
        if (static_cast<size_t>(width) > bits - at) throw CorruptStream("payload ends within its lane states");
        uint32_t value = 0;
        for (int i = 0; i < width; ++i, ++at) value = (value << 1) | ((data[at / 8] >> (7 - at % 8)) & 1u);
        return value;
    }
};

// Elements that are compacted, decoded and expanded at a time; their buffers should stay in the first-level cache.
constexpr size_t kChunk = 8192;

[[noreturn]] void refuse_index(const uint8_t* indexes, size_t n, int count) {
    for (size_t i = 0; i < n; ++i) {
        if (indexes[i] != kSkip && indexes[i] >= count) {
            throw InvalidTable("index " + std::to_string(indexes[i]) + " at position " + std::to_string(i) +
                               ", but there are " + std::to_string(count) + " tables");
        }
    }
    std::abort();  // only called where there is one
}

// Checks that all indexes are valid, and counts those that are SKIP.
size_t count_skipped(const uint8_t* indexes, size_t n, int count) {
    size_t skipped = 0;
    uint8_t highest = 0;  // of indexes + 1, where SKIP has become 0
    for (size_t from = 0; from < n; from += 255) {
        // Sums of 255 fit 8 bits, so that the compiler can count in vectors of bytes.
        const size_t to = std::min(n, from + 255);
        uint8_t here = 0;
        for (size_t i = from; i < to; ++i) {
            here = static_cast<uint8_t>(here + (indexes[i] == kSkip));
            highest = std::max(highest, static_cast<uint8_t>(indexes[i] + 1));
        }
        skipped += here;
    }
    if (highest > count) refuse_index(indexes, n, count);
    return skipped;
}

// Reads symbols one by one by scalar code, escapes too. It copies the run, so that its numbers stay in registers.
struct Reader {
    DecodeRun run;
    const uint8_t* next;

    explicit Reader(const DecodeRun& from) : run(from), next(from.next) {}

    // Takes a word into a state below kLow. If no words are left, only a single lane may stay below.
    void renormalise(uint32_t& state) {
        if (state >= kLow) return;
        if (run.end - next >= 2) {
            state = (state << 16) | next[0] | (static_cast<uint32_t>(next[1]) << 8);
            next += 2;
        } else if (run.lanes != 1) {
            throw CorruptStream("payload ends before its symbols do");
        }
    }

    uint32_t bits(uint32_t& state, int width) {
        const uint32_t value = state & ((1u << width) - 1);
        state >>= width;
        renormalise(state);
        return value;
    }

    int32_t escaped(uint32_t& state, const TableView& table) {
        int k = 0;
        while (k < kMaxPrefix && bits(state, 1) == 1) ++k;
        const uint32_t u = (1u << k) + (k > 0 ? bits(state, k) : 0) - 1;
        const int32_t distance = static_cast<int32_t>(u / 2) + 1;
        const int32_t value =
            u % 2 == 0 ? table.minimum + static_cast<int32_t>(table.escape) - 1 + distance : table.minimum - distance;
        if (value < -kMaxValue || value > kMaxValue) {
            throw CorruptStream("an escaped symbol has the value " + std::to_string(value) +
                                ", outside -32767 to 32767");
        }
        return value;
    }

    int16_t symbol(uint32_t& lane, uint8_t index) {
        uint32_t state = lane;
        int32_t value = read_symbol(run, index, state);
        renormalise(state);
        if (value == kEscape) value = escaped(state, run.tables[index]);
        lane = state;
        return static_cast<int16_t>(value);
    }
};

// Reads n symbols, of which the first belongs to the lane `lane`.
void read_some(DecodeRun& run, size_t n, size_t lane) {
    Reader reader(run);
    uint32_t* const states = run.states;
    const size_t mask = static_cast<size_t>(run.lanes) - 1;
    const uint8_t* const indexes = run.indexes;
    int16_t* const values = run.values;
    for (size_t i = 0; i < n; ++i) values[i] = reader.symbol(states[(lane + i) & mask], indexes[i]);
    run.next = reader.next;
    run.indexes += n;
    run.values += n;
}

// Reads n symbols without SKIP, whole groups of them by the kernel of the instruction set.
void read_dense(DecodeRun& run, const Kernels& kernels, size_t n, size_t& lane) {
    const size_t lanes = static_cast<size_t>(run.lanes);
    const size_t head = std::min(n, (lanes - lane) % lanes);
    read_some(run, head, lane);
    n -= head;
    run.groups = kernels.decode == nullptr ? 0 : n / lanes;
    while (run.groups > 0) {
        const size_t done = kernels.decode(&run);
        count_groups(kernels.groups_isa, {done, 0});
        run.indexes += done * lanes;
        run.values += done * lanes;
        run.groups -= done;
        n -= done * lanes;
        if (run.groups == 0) break;
        read_some(run, lanes, 0);  // the group at which the kernel stopped
        --run.groups;
        n -= lanes;
    }
    read_some(run, n, 0);
    lane = (lane + head + n) % lanes;
}

}  // namespace

PayloadInfo payload_info(const uint8_t* data, size_t size) { return Decoder(data, size, Isa::portable).info(); }

Decoder::Decoder(const uint8_t* data, size_t size, Isa isa) : begin_(data), next_(data), end_(data + size), isa_(isa) {
    if (size == 0) throw CorruptStream("payload is empty");
    const uint8_t header = data[0];
    const int lanes_log2 = header & 7;
    if (header & 0x80 || lanes_log2 > kMaxLanesLog2) {
        throw CorruptStream("payload header byte is " + std::to_string(header) + ", which no encoder writes");
    }
    const int lanes = 1 << lanes_log2;
    BitReader reader{data + 1, (size - 1) * 8};
    for (int lane = 0; lane < lanes; ++lane) {
        const int width = static_cast<int>(reader.take(exponent_bits(lanes))) + state_base(lanes);
        states_[lane] = (1u << width) | reader.take(width);
    }
    const size_t state_bytes = 1 + (reader.at + 7) / 8;
    if (reader.take(static_cast<int>((state_bytes - 1) * 8 - reader.at)) != 0) {
        throw CorruptStream("the bits after the lane states are not zero");
    }
    if ((size - state_bytes) % 2 != 0) {
        throw CorruptStream("payload holds half a word: " + std::to_string(size) + " bytes");
    }
    next_ = data + state_bytes;
    info_ = {lanes, (header >> 3) + 1, state_bytes};
    kernels_ = kernels_for(isa_, lanes);
}

void Decoder::read(const uint8_t* indexes, size_t n, const Tables& tables, int16_t* symbols) {
    if (failed_) throw CorruptStream("this decoder has failed before");
    if (tables.precision() != info_.precision) {
        // The payload is at fault and not the tables, since the number that differs comes from its header.
        throw CorruptStream("payload has " + std::to_string(info_.precision) + " bits of precision, its tables have " +
                            std::to_string(tables.precision()));
    }
    failed_ = true;  // until this section has been read to its end
    const size_t skipped = count_skipped(indexes, n, tables.count());
    DecodeRun run{tables.buckets(),
                  tables.symbols(),
                  tables.views(),
                  tables.bucket_bits(),
                  info_.precision,
                  info_.lanes,
                  states_,
                  next_,
                  end_,
                  indexes,
                  symbols,
                  0};
    size_t lane = 0;
    if (skipped == 0) {
        read_dense(run, kernels_, n, lane);
    } else {
        uint8_t dense_indexes[kChunk + kDenseRoom];
        int16_t dense_values[kChunk + kDenseRoom];
        for (size_t from = 0; from < n; from += kChunk) {
            const size_t size = std::min(kChunk, n - from);
            const size_t coded = kernels_.compact(indexes + from, size, dense_indexes);
            run.indexes = dense_indexes;
            run.values = dense_values;
            read_dense(run, kernels_, coded, lane);
            kernels_.expand(indexes + from, size, dense_values, symbols + from);
        }
    }
    next_ = run.next;
    failed_ = false;
}

void Decoder::finish() const {
    if (failed_) throw CorruptStream("this decoder has failed before");
    if (next_ != end_) {
        throw CorruptStream(std::to_string(end_ - next_) + " bytes of the payload are left over");
    }
    for (int lane = 0; lane < info_.lanes; ++lane) {
        if (states_[lane] != initial_state(info_.lanes)) {
            throw CorruptStream("lane " + std::to_string(lane) + " does not end where encoding started: state " +
                                std::to_string(states_[lane]));
        }
    }
}

}  // namespace sodec::rans
