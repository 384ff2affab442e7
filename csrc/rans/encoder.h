#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../cpu.h"
#include "tables.h"

namespace sodec::rans {

// What is coded together: n symbols, each with the table of its own index. A payload is a sequence of sections.
struct Section {
    const int16_t* symbols;
    const uint8_t* indexes;
    size_t n;
    const Tables* tables;
};

// Lanes for a payload of about this many bytes.
int lanes_for(uint64_t bytes);

// The payload. lanes is a power of two up to 64, or 0 to choose by the estimated size.
// Throws InvalidTable where an index has no table or the precisions differ, std::invalid_argument where a symbol
// can't be coded.
std::vector<uint8_t> encode(const std::vector<Section>& sections, int lanes, Isa isa);

}  // namespace sodec::rans
