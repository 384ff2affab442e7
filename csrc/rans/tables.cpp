#include "tables.h"

#include <algorithm>
#include <string>
#include <utility>

#include "../errors.h"
#include "format.h"

namespace sodec::rans {
namespace {

[[noreturn]] void refuse(size_t table, const std::string& fault) {
    throw InvalidTable("frequency table " + std::to_string(table) + ": " + fault);
}

SymbolEntry symbol_entry(uint32_t start, uint32_t frequency) {
    const uint64_t reciprocal = std::min((uint64_t{1} << 32) / frequency, (uint64_t{1} << 32) - 1);
    return reciprocal | (uint64_t{start} << 32) | (uint64_t{frequency - 1} << 48);
}

BucketEntry many(uint32_t first, uint32_t more) {
    return first | (uint64_t{more} << 24) | (uint64_t{static_cast<uint16_t>(kManyValue)} << 48);
}

// A bucket of two symbols; c points to the cumulative frequencies of the first, of the second, and after that.
BucketEntry two(const int32_t* c, int32_t value) {
    return static_cast<uint64_t>(c[1]) | (static_cast<uint64_t>(c[1] - c[0] - 1) << 16) |
           (static_cast<uint64_t>(c[2] - c[1] - 1) << 32) | (uint64_t{static_cast<uint16_t>(value)} << 48);
}

// precision - log2(frequency) in units of 2^-16 bit: the fraction bit by bit, by squaring.
uint32_t cost_of(uint32_t frequency, int precision) {
    const int whole = floor_log2(frequency);
    uint64_t mantissa = (static_cast<uint64_t>(frequency) << 31) >> whole;  // in [2^31, 2^32)
    uint32_t fraction = 0;
    for (int i = 0; i < 16; ++i) {
        mantissa = (mantissa * mantissa) >> 31;
        fraction <<= 1;
        if (mantissa >> 32) {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    return (static_cast<uint32_t>(precision - whole) << 16) - fraction;
}

}  // namespace

Tables::Tables(std::vector<int32_t> cumulative, std::vector<int32_t> offsets, std::vector<int32_t> minimums,
               int precision)
    : cumulative_(std::move(cumulative)),
      offsets_(std::move(offsets)),
      minimums_(std::move(minimums)),
      precision_(precision),
      count_(static_cast<int>(minimums_.size())),
      bucket_bits_(precision > kBucketBits ? kBucketBits : precision),
      views_{} {
    if (precision < 1 || precision > kMaxPrecision) {
        throw InvalidTable("precision is " + std::to_string(precision) + ", not 1 to 16 bits");
    }
    const size_t count = minimums_.size();
    if (count < 1 || count > kMaxTables) {
        throw InvalidTable("there are " + std::to_string(count) + " frequency tables, not 1 to 255");
    }
    if (offsets_.size() != count + 1 || offsets_[0] != 0 ||
        static_cast<size_t>(offsets_[count]) != cumulative_.size()) {
        throw InvalidTable("the offsets do not lead from 0 to the " + std::to_string(cumulative_.size()) +
                           " cumulative frequencies of " + std::to_string(count) + " tables");
    }
    const int32_t total = 1 << precision;
    for (size_t t = 0; t < count; ++t) {
        // Symbols are one fewer than cumulative frequencies. The offsets are checked before they are followed.
        const int64_t symbols = static_cast<int64_t>(offsets_[t + 1]) - offsets_[t] - 1;
        if (symbols < 1 || symbols > kMaxSymbols || offsets_[t + 1] > offsets_[count]) {
            refuse(t, "has " + std::to_string(symbols) + " symbols, not 1 to " + std::to_string(kMaxSymbols));
        }
        const int32_t* c = cumulative_.data() + offsets_[t];
        if (c[0] != 0 || c[symbols] != total) {
            refuse(t, "runs from " + std::to_string(c[0]) + " to " + std::to_string(c[symbols]) + ", not from 0 to " +
                          std::to_string(total));
        }
        for (int64_t s = 0; s < symbols; ++s) {
            if (c[s + 1] <= c[s]) refuse(t, "symbol " + std::to_string(s) + " has no positive frequency");
        }
        const int64_t maximum = minimums_[t] + symbols - 2;
        if (minimums_[t] < -kMaxValue || minimums_[t] > kMaxValue || maximum > kMaxValue) {
            refuse(t, "values " + std::to_string(minimums_[t]) + " to " + std::to_string(maximum) +
                          " leave -32767 to 32767");
        }
    }

    const size_t symbols = cumulative_.size() - count;
    symbols_.reserve(symbols);
    costs_.reserve(symbols);
    buckets_.reserve(count << bucket_bits_);
    for (size_t t = 0; t < count; ++t) add(t);
}

// Adds the entries of a checked table that encoder and decoder look up.
void Tables::add(size_t t) {
    const int32_t* c = cumulative_.data() + offsets_[t];
    const uint32_t escape = static_cast<uint32_t>(offsets_[t + 1] - offsets_[t] - 2);
    const uint32_t first = static_cast<uint32_t>(symbols_.size());
    views_[t] = {first, static_cast<int16_t>(minimums_[t]), static_cast<uint16_t>(escape)};
    for (uint32_t s = 0; s <= escape; ++s) {
        const uint32_t frequency = static_cast<uint32_t>(c[s + 1] - c[s]);
        symbols_.push_back(symbol_entry(static_cast<uint32_t>(c[s]), frequency));
        costs_.push_back(cost_of(frequency, precision_));
    }
    uint32_t begin = 0;  // the first symbol of a bucket
    for (int32_t bucket = 0; bucket < 1 << bucket_bits_; ++bucket) {
        const int32_t slot = bucket << (precision_ - bucket_bits_);
        const int32_t last_slot = slot + (1 << (precision_ - bucket_bits_)) - 1;
        while (c[begin + 1] <= slot) ++begin;
        uint32_t last = begin;
        while (c[last + 1] <= last_slot) ++last;
        if (last == escape || last > begin + 1) {
            buckets_.push_back(many(first + begin, last - begin));
        } else {
            buckets_.push_back(two(c + begin, minimums_[t] + static_cast<int32_t>(begin)));
        }
    }
}

}  // namespace sodec::rans
