// Frequency tables: validated once, never changed, shared by any number of encoders and decoders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sodec::rans {

class Tables {
public:
    // cumulative holds, table after table, 0 < c1 < ... < 2^precision; table t is [offsets[t], offsets[t + 1]) of it.
    // Symbol s of a table stands for the value minimums[t] + s; its last symbol is the escape.
    // Throws InvalidTable, naming the table and its fault.
    Tables(std::vector<int32_t> cumulative, std::vector<int32_t> offsets, std::vector<int32_t> minimums, int precision);

    struct Symbol {
        uint32_t start;
        uint32_t frequency;
    };

    struct Table {
        const Symbol* symbols;
        const uint16_t* buckets;  // first symbol of each bucket of slots, and one more
        int32_t minimum;
        uint32_t escape;  // its symbol number, also the number of values
    };

    int precision() const { return precision_; }
    int count() const { return static_cast<int>(tables_.size()); }
    const Table& operator[](size_t index) const { return tables_[index]; }
    int bucket_shift() const { return bucket_shift_; }
    // Cost of symbol s of table t in 2^-16 bits, in integers so that every machine picks the same number of lanes.
    const uint32_t* costs(const Table& table) const { return costs_.data() + (table.symbols - symbols_.data()); }

    const std::vector<int32_t>& cumulative() const { return cumulative_; }
    const std::vector<int32_t>& offsets() const { return offsets_; }
    const std::vector<int32_t>& minimums() const { return minimums_; }

    // The symbol whose interval holds this slot: its bucket names one symbol most of the time, else a few.
    static uint32_t find(const Table& table, uint32_t slot, int bucket_shift) {
        const uint32_t bucket = slot >> bucket_shift;
        uint32_t low = table.buckets[bucket];
        uint32_t high = table.buckets[bucket + 1];
        while (low < high) {
            const uint32_t middle = (low + high + 1) / 2;
            if (table.symbols[middle].start <= slot) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        return low;
    }

private:
    std::vector<int32_t> cumulative_, offsets_, minimums_;
    int precision_;
    int bucket_shift_;
    std::vector<Symbol> symbols_;
    std::vector<uint32_t> costs_;
    std::vector<uint16_t> buckets_;
    std::vector<Table> tables_;
};

}  // namespace sodec::rans
