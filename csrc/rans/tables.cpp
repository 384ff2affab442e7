#include "tables.h"

#include <string>
#include <utility>

#include "../errors.h"
#include "format.h"

namespace sodec::rans {
namespace {

// 256 buckets: 64 tables of them stay in 32 KiB, and few buckets of a usual table hold more than one symbol.
constexpr int kBucketsLog2 = 8;

[[noreturn]] void refuse(size_t table, const std::string& fault) {
    throw InvalidTable("frequency table " + std::to_string(table) + ": " + fault);
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
      bucket_shift_(precision > kBucketsLog2 ? precision - kBucketsLog2 : 0) {
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

    const size_t buckets = static_cast<size_t>(total >> bucket_shift_);
    symbols_.reserve(cumulative_.size() - count);
    costs_.reserve(cumulative_.size() - count);
    buckets_.reserve(count * (buckets + 1));
    tables_.reserve(count);
    for (size_t t = 0; t < count; ++t) {
        const int32_t* c = cumulative_.data() + offsets_[t];
        const uint32_t symbols = static_cast<uint32_t>(offsets_[t + 1] - offsets_[t] - 1);
        tables_.push_back(
            {symbols_.data() + symbols_.size(), buckets_.data() + buckets_.size(), minimums_[t], symbols - 1});
        for (uint32_t s = 0; s < symbols; ++s) {
            const uint32_t frequency = static_cast<uint32_t>(c[s + 1] - c[s]);
            symbols_.push_back({static_cast<uint32_t>(c[s]), frequency});
            costs_.push_back(cost_of(frequency, precision));
        }
        uint32_t symbol = 0;
        for (size_t bucket = 0; bucket < buckets; ++bucket) {
            const int32_t slot = static_cast<int32_t>(bucket << bucket_shift_);
            while (c[symbol + 1] <= slot) ++symbol;
            buckets_.push_back(static_cast<uint16_t>(symbol));
        }
        buckets_.push_back(static_cast<uint16_t>(symbols - 1));
    }
}

}  // namespace sodec::rans
