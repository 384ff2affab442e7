#include "encoder.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "../errors.h"
#include "dispatch.h"
#include "format.h"

namespace sodec::rans {
namespace {

// Elements that are looked up, then encoded, at a time; their ids should stay in the first-level cache.
constexpr size_t kChunk = 4096;
constexpr size_t kEscapeWords = 4;  // at most, of one escape: its symbol, then 33 bits in steps

// Words, written from the back of a buffer to its front, since rANS encodes in reverse.
class Words {
public:
    // Room for `words` more before the front.
    void reserve(size_t words) {
        const size_t room = static_cast<size_t>(front - buffer_.get());
        if (room >= words) return;
        const size_t used = size();
        const size_t capacity = std::max(2 * capacity_, used + words);
        std::unique_ptr<uint16_t[]> larger(new uint16_t[capacity]);  // not a vector: nothing needs to be zeroed
        uint16_t* to = larger.get() + capacity - used;
        std::copy(front, front + used, to);
        buffer_ = std::move(larger);
        capacity_ = capacity;
        front = to;
    }
    size_t size() const { return static_cast<size_t>(buffer_.get() + capacity_ - front); }

    uint16_t* front = nullptr;

private:
    std::unique_ptr<uint16_t[]> buffer_;
    size_t capacity_ = 0;
};

void renormalise(uint16_t*& front, uint32_t& state, uint64_t limit) {
    if (state >= limit) {
        *--front = static_cast<uint16_t>(state);
        state >>= 16;
    }
}

// C(s, x), with the division by multiplication: the quotient by the reciprocal is right or 1 too small.
void put(uint16_t*& front, uint32_t& state, SymbolEntry symbol, int precision) {
    const uint32_t frequency = static_cast<uint32_t>(symbol >> 48) + 1;
    renormalise(front, state, static_cast<uint64_t>(frequency) << (32 - precision));
    uint32_t quotient = static_cast<uint32_t>((state * (symbol & 0xFFFFFFFF)) >> 32);
    uint32_t rest = state - quotient * frequency;
    const uint32_t one_less = rest >= frequency;
    quotient += one_less;
    rest -= frequency & (0 - one_less);
    state = (quotient << precision) + rest + ((symbol >> 32) & 0xFFFF);
}

void put_bits(uint16_t*& front, uint32_t& state, uint32_t value, int bits) {
    renormalise(front, state, uint64_t{1} << (32 - bits));
    state = (state << bits) | value;
}

// The Exp-Golomb code of an escaped value (see format.h), the last step first.
void put_escaped(uint16_t*& front, uint32_t& state, uint32_t u) {
    const int k = floor_log2(u + 1);
    if (k > 0) put_bits(front, state, u + 1 - (1u << k), k);
    if (k < kMaxPrefix) put_bits(front, state, 0, 1);
    for (int i = 0; i < k; ++i) put_bits(front, state, 1, 1);
}

uint32_t escaped(int32_t offset, const TableView& table) {
    return offset < 0 ? 2u * static_cast<uint32_t>(-1 - offset) + 1
                      : 2u * (static_cast<uint32_t>(offset) - table.escape);
}

[[noreturn]] void refuse(const Section& section) {
    for (size_t i = 0;; ++i) {  // only called where there is a fault
        const uint8_t index = section.indexes[i];
        const int16_t symbol = section.symbols[i];
        const std::string where = " at position " + std::to_string(i);
        if (index != kSkip && index >= section.tables->count()) {
            throw InvalidTable("index " + std::to_string(index) + where + ", but there are " +
                               std::to_string(section.tables->count()) + " tables");
        }
        if (index == kSkip && symbol != 0) {
            throw std::invalid_argument("symbol " + std::to_string(symbol) + where +
                                        " is skipped (index 255), where only 0 can be");
        }
        if (symbol < -kMaxValue) throw std::invalid_argument("symbol -32768" + where + " is below -32767");
    }
}

// Checks that all elements can be encoded, and counts those that are not SKIP. Separate loops over bytes and over 16
// bits, so that compilers vectorise them.
size_t count_coded(const Section& section) {
    size_t coded = 0;
    uint8_t highest = 0;  // of indexes + 1, where SKIP has become 0
    int16_t lowest = 0;
    int16_t skipped_bits = 0;
    for (size_t from = 0; from < section.n; from += 255) {
        const size_t size = std::min<size_t>(255, section.n - from);  // sums of 255 fit 8 bits
        const uint8_t* indexes = section.indexes + from;
        const int16_t* symbols = section.symbols + from;
        uint8_t here = 0;
        for (size_t i = 0; i < size; ++i) {
            here = static_cast<uint8_t>(here + (indexes[i] != kSkip));
            highest = std::max(highest, static_cast<uint8_t>(indexes[i] + 1));
        }
        for (size_t i = 0; i < size; ++i) lowest = std::min(lowest, symbols[i]);
        if (here < size) {
            for (size_t i = 0; i < size; ++i) {
                skipped_bits = static_cast<int16_t>(skipped_bits | (indexes[i] == kSkip ? symbols[i] : 0));
            }
        }
        coded += here;
    }
    if (highest > section.tables->count() || lowest < -kMaxValue || skipped_bits != 0) refuse(section);
    return coded;
}

// Estimates the bits of a section. Only some blocks of a large one are measured, since the number of lanes is all that
// depends on it.
uint64_t estimated_bits(const Section& section, LookUp look_up) {
    constexpr size_t kBlock = 64;
    constexpr size_t kMeasured = 32768;
    const size_t step = std::max<size_t>(1, section.n / kMeasured) * kBlock;
    uint64_t cost = 0, measured = 0;
    for (size_t from = 0; from < section.n; from += step) {
        const size_t size = std::min(kBlock, section.n - from);
        const uint8_t* indexes = section.indexes + from;
        const int16_t* symbols = section.symbols + from;
        uint32_t ids[kBlock + kDenseRoom];
        const LookUpRun run{section.tables->views(), section.tables->count(), indexes, symbols, size, ids};
        const size_t coded = look_up(&run);
        for (size_t i = 0; i < coded; ++i) {
            if (ids[i] < kEscapeId) {
                cost += section.tables->costs()[ids[i]];
            } else {
                const size_t at = ids[i] - kEscapeId;
                const TableView& table = section.tables->views()[indexes[at]];
                const int k = floor_log2(escaped(symbols[at] - table.minimum, table) + 1);
                cost += section.tables->costs()[table.first + table.escape] + (static_cast<uint64_t>(2 * k + 1) << 16);
            }
        }
        measured += size;
    }
    return measured == 0 ? 0 : (cost >> 16) * section.n / measured;
}

// Up to kChunk elements of a section, and the state that encoding them changes.
struct Chunk {
    const uint8_t* indexes;
    const int16_t* symbols;
    const Tables& tables;
    uint32_t* states;
    size_t lanes;
    uint16_t* front;

    // Encodes n ids in reverse by scalar code, escapes too. The first of them belongs to the lane `lane`.
    void put_some(const uint32_t* ids, size_t n, size_t lane) {
        const int precision = tables.precision();
        for (size_t i = n; i-- > 0;) {
            uint32_t& state = states[(lane + i) & (lanes - 1)];
            uint32_t id = ids[i];
            if (id >= kEscapeId) {
                const size_t at = id - kEscapeId;
                const TableView& table = tables.views()[indexes[at]];
                put_escaped(front, state, escaped(symbols[at] - table.minimum, table));
                id = table.first + table.escape;
            }
            put(front, state, tables.symbols()[id], precision);
        }
    }

    // Encodes n ids in reverse, whole groups by the kernel of the instruction set.
    void put_all(const Kernels& kernels, const uint32_t* ids, size_t n, size_t lane) {
        const size_t head = std::min(n, (lanes - lane) & (lanes - 1));
        const size_t groups = (n - head) / lanes;
        const uint32_t* grouped = ids + head;
        const size_t tail = n - head - groups * lanes;
        put_some(grouped + groups * lanes, tail, head == n ? lane : 0);
        EncodeRun run{tables.symbols(), tables.precision(), static_cast<int>(lanes), states, front, grouped, groups};
        while (run.groups > 0) {
            if (kernels.encode != nullptr) {
                run.front = front;
                const size_t done = kernels.encode(&run);
                count_groups(kernels.groups_isa, {0, done});
                run.groups -= done;
                front = run.front;
                if (run.groups == 0) break;
            }
            --run.groups;
            put_some(grouped + run.groups * lanes, lanes, 0);  // the group at which the kernel stopped
        }
        put_some(ids, head, lane);
    }
};

void encode_section(const Section& section, size_t coded, int lanes, const Kernels& kernels, uint32_t* states,
                    Words& words) {
    uint32_t ids[kChunk + kDenseRoom];
    for (size_t end = section.n; end > 0;) {
        const size_t size = (end - 1) % kChunk + 1;  // all but the last chunk are whole
        end -= size;
        Chunk chunk{
            section.indexes + end, section.symbols + end, *section.tables, states, static_cast<size_t>(lanes), nullptr};
        const LookUpRun run{section.tables->views(), section.tables->count(), chunk.indexes, chunk.symbols, size, ids};
        const size_t count = kernels.look_up(&run);
        coded -= count;
        words.reserve(kEscapeWords * count + kFrontRoom);
        chunk.front = words.front;
        chunk.put_all(kernels, ids, count, coded % static_cast<size_t>(lanes));
        words.front = chunk.front;
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

std::vector<uint8_t> encode(const std::vector<Section>& sections, int lanes, Isa isa) {
    if (sections.empty()) throw std::invalid_argument("there are no sections to encode");
    const int precision = sections[0].tables->precision();
    std::vector<size_t> coded(sections.size());
    for (size_t s = 0; s < sections.size(); ++s) {
        if (sections[s].tables->precision() != precision) {
            throw InvalidTable("section " + std::to_string(s) + " has tables of " +
                               std::to_string(sections[s].tables->precision()) + " bits, section 0 of " +
                               std::to_string(precision));
        }
        coded[s] = count_coded(sections[s]);
    }
    if (lanes == 0) {
        const LookUp look_up = kernels_for(isa, kMaxLanes).look_up;
        uint64_t bits = 0;
        for (const Section& section : sections) bits += estimated_bits(section, look_up);
        lanes = lanes_for(bits / 8);
    }
    if (lanes < 1 || lanes > kMaxLanes || (lanes & (lanes - 1)) != 0) {
        throw std::invalid_argument("lanes is " + std::to_string(lanes) + ", not a power of two from 1 to 64");
    }

    uint32_t states[kMaxLanes];
    std::fill(states, states + lanes, initial_state(lanes));
    Words words;
    const Kernels kernels = kernels_for(isa, lanes);
    for (size_t s = sections.size(); s-- > 0;) {
        encode_section(sections[s], coded[s], lanes, kernels, states, words);
    }

    std::vector<uint8_t> out;
    out.reserve(static_cast<size_t>(1 + 5 * lanes) + 2 * words.size());
    out.push_back(header_byte(floor_log2(static_cast<uint32_t>(lanes)), precision));
    append_states(out, states, lanes);
    for (const uint16_t* word = words.front; word != words.front + words.size(); ++word) {
        out.push_back(static_cast<uint8_t>(*word));
        out.push_back(static_cast<uint8_t>(*word >> 8));
    }
    return out;
}

}  // namespace sodec::rans
