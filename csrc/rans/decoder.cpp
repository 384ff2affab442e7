#include "decoder.h"

#include <string>

#include "../errors.h"

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

}  // namespace

// The cursor of one read(), kept in registers by the loop and written back once.
struct Decoder::Reader {
    const uint8_t* next;
    const uint8_t* end;
    bool single;

    void renormalise(uint32_t& state) {
        if (state >= kLow) return;
        if (end - next >= 2) {
            state = (state << 16) | next[0] | (static_cast<uint32_t>(next[1]) << 8);
            next += 2;
        } else if (!single) {
            throw CorruptStream("payload ends before its symbols do");
        }
    }

    uint32_t bits(uint32_t& state, int width) {
        const uint32_t value = state & ((1u << width) - 1);
        state >>= width;
        renormalise(state);
        return value;
    }

    int32_t escaped(uint32_t& state, const Tables::Table& table) {
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
};

PayloadInfo payload_info(const uint8_t* data, size_t size) { return Decoder(data, size).info(); }

Decoder::Decoder(const uint8_t* data, size_t size) : begin_(data), next_(data), end_(data + size) {
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
}

void Decoder::read(const uint8_t* indexes, size_t n, const Tables& tables, int16_t* symbols) {
    if (failed_) throw CorruptStream("this decoder has failed before");
    if (tables.precision() != info_.precision) {
        // The payload's fault and not the tables': the number that differs came with the bytes.
        throw CorruptStream("payload has " + std::to_string(info_.precision) + " bits of precision, its tables have " +
                            std::to_string(tables.precision()));
    }
    failed_ = true;  // until this section has been read to its end
    const int precision = info_.precision;
    const int bucket_shift = tables.bucket_shift();
    const uint32_t slots = (1u << precision) - 1;
    const int count = tables.count();
    const size_t mask = static_cast<size_t>(info_.lanes) - 1;
    Reader reader{next_, end_, info_.lanes == 1};
    size_t coded = 0;
    for (size_t i = 0; i < n; ++i) {
        const uint8_t index = indexes[i];
        if (index == kSkip) {
            symbols[i] = 0;
            continue;
        }
        if (index >= count) {
            throw InvalidTable("index " + std::to_string(index) + " at position " + std::to_string(i) +
                               ", but there are " + std::to_string(count) + " tables");
        }
        const Tables::Table& table = tables[index];
        uint32_t& lane = states_[coded++ & mask];
        uint32_t state = lane;
        const uint32_t slot = state & slots;
        const uint32_t symbol = Tables::find(table, slot, bucket_shift);
        const Tables::Symbol interval = table.symbols[symbol];
        state = interval.frequency * (state >> precision) + slot - interval.start;
        reader.renormalise(state);
        int32_t value = table.minimum + static_cast<int32_t>(symbol);
        if (symbol == table.escape) value = reader.escaped(state, table);
        lane = state;
        symbols[i] = static_cast<int16_t>(value);
    }
    next_ = reader.next;
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
