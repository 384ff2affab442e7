#include "encoder.h"

#include <memory>
#include <stdexcept>
#include <string>

#include "../errors.h"
#include "format.h"

namespace sodec::rans {
namespace {

// Writes words from the back of a buffer to its front, since rANS encodes in the reverse of reading order.
struct Writer {
    uint32_t states[kMaxLanes];
    uint16_t* front;

    void renormalise(uint32_t& state, uint64_t limit) {
        if (state >= limit) {
            *--front = static_cast<uint16_t>(state);
            state >>= 16;
        }
    }

    void put(uint32_t& state, Tables::Symbol symbol, int precision) {
        renormalise(state, static_cast<uint64_t>(symbol.frequency) << (32 - precision));
        const uint32_t quotient = state / symbol.frequency;
        state = (quotient << precision) + (state - quotient * symbol.frequency) + symbol.start;
    }

    void put_bits(uint32_t& state, uint32_t value, int bits) {
        renormalise(state, uint64_t{1} << (32 - bits));
        state = (state << bits) | value;
    }

    // The escaped value of format.h, last step first.
    void put_escaped(uint32_t& state, uint32_t u) {
        const int k = floor_log2(u + 1);
        if (k > 0) put_bits(state, u + 1 - (1u << k), k);
        if (k < kMaxPrefix) put_bits(state, 0, 1);
        for (int i = 0; i < k; ++i) put_bits(state, 1, 1);
    }
};

uint32_t escaped(int32_t offset, const Tables::Table& table) {
    return offset < 0 ? 2u * static_cast<uint32_t>(-1 - offset) + 1
                      : 2u * (static_cast<uint32_t>(offset) - table.escape);
}

struct Survey {
    uint64_t cost = 0;   // in 2^-16 bit
    uint64_t words = 0;  // no more than this many will be written
};

// Checks a section before a byte is written, and measures it. `coded` is the number of elements that are not SKIP.
Survey survey(const Section& section, size_t& coded) {
    Survey found;
    coded = 0;
    for (size_t i = 0; i < section.n; ++i) {
        const uint8_t index = section.indexes[i];
        const int32_t value = section.symbols[i];
        if (index == kSkip) {
            if (value != 0) {
                throw std::invalid_argument("symbol " + std::to_string(value) + " at position " + std::to_string(i) +
                                            " is skipped (index 255), where only 0 can be");
            }
            continue;
        }
        if (index >= section.tables->count()) {
            throw InvalidTable("index " + std::to_string(index) + " at position " + std::to_string(i) +
                               ", but there are " + std::to_string(section.tables->count()) + " tables");
        }
        if (value < -kMaxValue) {
            throw std::invalid_argument("symbol -32768 at position " + std::to_string(i) + " is below -32767");
        }
        const Tables::Table& table = (*section.tables)[index];
        const int32_t offset = value - table.minimum;
        const bool escape = offset < 0 || offset >= static_cast<int32_t>(table.escape);
        const uint32_t* costs = section.tables->costs(table);
        if (escape) {
            const int k = floor_log2(escaped(offset, table) + 1);
            found.cost += costs[table.escape] + (static_cast<uint64_t>(2 * k + 1) << 16);
            found.words += 4;  // the symbol, then at most 32 bits
        } else {
            found.cost += costs[offset];
            found.words += 1;
        }
        ++coded;
    }
    return found;
}

void encode_section(const Section& section, size_t coded, int lanes, Writer& writer) {
    const Tables& tables = *section.tables;
    const int precision = tables.precision();
    const size_t mask = static_cast<size_t>(lanes) - 1;
    for (size_t i = section.n; i-- > 0;) {
        const uint8_t index = section.indexes[i];
        if (index == kSkip) continue;
        const Tables::Table& table = tables[index];
        uint32_t& state = writer.states[--coded & mask];
        const int32_t offset = section.symbols[i] - table.minimum;
        if (offset < 0 || offset >= static_cast<int32_t>(table.escape)) {
            writer.put_escaped(state, escaped(offset, table));
            writer.put(state, table.symbols[table.escape], precision);
        } else {
            writer.put(state, table.symbols[offset], precision);
        }
    }
}

void append_states(std::vector<uint8_t>& out, const uint32_t* states, int lanes) {
    uint64_t pending = 0;
    int bits = 0;
    const auto put = [&](uint32_t value, int width) {
        pending = (pending << width) | value;
        for (bits += width; bits >= 8; bits -= 8) out.push_back(static_cast<uint8_t>(pending >> (bits - 8)));
    };
    for (int lane = 0; lane < lanes; ++lane) {
        const int width = floor_log2(states[lane]);
        put(static_cast<uint32_t>(width - state_base(lanes)), exponent_bits(lanes));
        put(states[lane] - (1u << width), width);
    }
    if (bits > 0) put(0, 8 - bits);
}

}  // namespace

// A lane beyond the first costs 2.5 bytes (16 bits of its initial state, half of the 4-bit exponent's and packing's
// rounding); these limits keep that below 0.4 % of the payload.
int lanes_for(uint64_t bytes) {
    static constexpr struct {
        uint64_t bytes;
        int lanes;
    } limits[] = {{65536, 64}, {20480, 32}, {10240, 16}, {4608, 8}, {2048, 4}, {768, 2}};
    for (const auto& limit : limits) {
        if (bytes >= limit.bytes) return limit.lanes;
    }
    return 1;
}

std::vector<uint8_t> encode(const std::vector<Section>& sections, int lanes) {
    if (sections.empty()) throw std::invalid_argument("there are no sections to encode");
    const int precision = sections[0].tables->precision();
    Survey total;
    std::vector<size_t> coded(sections.size());
    for (size_t s = 0; s < sections.size(); ++s) {
        if (sections[s].tables->precision() != precision) {
            throw InvalidTable("section " + std::to_string(s) + " has tables of " +
                               std::to_string(sections[s].tables->precision()) + " bits, section 0 of " +
                               std::to_string(precision));
        }
        const Survey part = survey(sections[s], coded[s]);
        total.cost += part.cost;
        total.words += part.words;
    }
    if (lanes == 0) lanes = lanes_for(total.cost >> 19);
    if (lanes < 1 || lanes > kMaxLanes || (lanes & (lanes - 1)) != 0) {
        throw std::invalid_argument("lanes is " + std::to_string(lanes) + ", not a power of two from 1 to 64");
    }

    // Not a vector: nothing needs to be zeroed here.
    const std::unique_ptr<uint16_t[]> buffer(new uint16_t[total.words]);
    Writer writer;
    for (int lane = 0; lane < lanes; ++lane) writer.states[lane] = initial_state(lanes);
    writer.front = buffer.get() + total.words;
    for (size_t s = sections.size(); s-- > 0;) encode_section(sections[s], coded[s], lanes, writer);

    const uint16_t* end = buffer.get() + total.words;
    std::vector<uint8_t> out;
    out.reserve(static_cast<size_t>(1 + 4 * lanes + 2 * (end - writer.front)));
    out.push_back(header_byte(floor_log2(static_cast<uint32_t>(lanes)), precision));
    append_states(out, writer.states, lanes);
    for (const uint16_t* word = writer.front; word != end; ++word) {
        out.push_back(static_cast<uint8_t>(*word));
        out.push_back(static_cast<uint8_t>(*word >> 8));
    }
    return out;
}

}  // namespace sodec::rans
