// Frequency tables: validated once, never changed, shared by any number of encoders and decoders.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace sodec::rans {

class Tables {
public:
    // cumulative holds, table after table, 0 < c1 < ... < 2^precision; table t is [offsets[t], offsets[t + 1]) of it.
    // Symbol s of a table stands for the value minimums[t] + s; its last symbol is the escape.
    // Throws InvalidTable, naming the table and its fault.
    Tables(std::vector<int32_t> cumulative, std::vector<int32_t> offsets, std::vector<int32_t> minimums, int precision);

    int precision() const { return precision_; }
    int count() const { return count_; }
    int bucket_bits() const { return bucket_bits_; }
    const TableView* views() const { return views_.data(); }
    const SymbolEntry* symbols() const { return symbols_.data(); }
    const BucketEntry* buckets() const { return buckets_.data(); }
    // Cost of each symbol in 2^-16 bits, in integers so that every machine picks the same number of lanes.
    const uint32_t* costs() const { return costs_.data(); }

    const std::vector<int32_t>& cumulative() const { return cumulative_; }
    const std::vector<int32_t>& offsets() const { return offsets_; }
    const std::vector<int32_t>& minimums() const { return minimums_; }

private:
    void add(size_t table);

    std::vector<int32_t> cumulative_, offsets_, minimums_;
    int precision_;
    int count_;
    int bucket_bits_;
    std::array<TableView, 256> views_;
    std::vector<SymbolEntry> symbols_;
    std::vector<uint32_t> costs_;
    std::vector<BucketEntry> buckets_;
};

}  // namespace sodec::rans
