// Any bytes, read as a payload and as symbols to be coded, by every instruction set: they must agree in each byte, each
// symbol and each error. What differs aborts; what reads or writes elsewhere is the sanitizers' to find.
//
// Input: one byte of choices (bits 0-1 tables, bits 2-3 pattern of indexes, bit 4 two sections, bit 5 encode), two
// bytes for the number of symbols (modulo 2^14), then the payload. tests/hostile/ holds such files.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu.h"
#include "errors.h"
#include "rans/decoder.h"
#include "rans/encoder.h"

namespace {

using namespace sodec;

struct Input {
    int tables, pattern;
    bool two_sections, encode;
    size_t n;
    const uint8_t* payload;
    size_t size;
};

uint32_t mixed(uint32_t value) { return value * 2654435761u >> 16; }

// Frequencies that fall from the middle to the ends, as often halved as `steepness` says; the rest is the middle's.
void append_table(std::vector<int32_t>& cumulative, int values, int steepness, int precision) {
    const int32_t total = 1 << precision;
    std::vector<int32_t> frequencies(static_cast<size_t>(values) + 1, 1);
    int32_t left = total - values - 1;
    for (int distance = 0; distance <= values / 2 && left > 0; ++distance) {
        for (int side : {values / 2 - distance, values / 2 + distance}) {
            const int32_t share = side < values ? left >> steepness : 0;
            frequencies[static_cast<size_t>(side < values ? side : 0)] += share;
            left -= share;
        }
    }
    frequencies[static_cast<size_t>(values / 2)] += left;
    cumulative.push_back(0);
    for (int32_t frequency : frequencies) cumulative.push_back(cumulative.back() + frequency);
}

rans::Tables make_tables(int kind, int precision) {
    // Numbers of values: narrow ones, usual ones of more tables than fit registers, wide ones, nothing but escapes.
    std::vector<int> sizes;
    if (kind == 0) sizes = {1, 3, 3, 5, 7};
    if (kind == 1) {
        for (int t = 0; t < 70; ++t) sizes.push_back(3 + 2 * t);
    }
    if (kind == 2) sizes = {4096, 2001, 300, 31};
    if (kind == 3) sizes = {0, 1, 0, 2};
    std::vector<int32_t> cumulative, offsets{0}, minimums;
    for (int size : sizes) {
        const int values = std::min(size, (1 << precision) - 1);
        append_table(cumulative, values, 1 + static_cast<int>(minimums.size() % 5), precision);
        offsets.push_back(static_cast<int32_t>(cumulative.size()));
        minimums.push_back(kind == 3 ? (minimums.size() % 2 ? 32760 : -32767) : -values / 2);
    }
    return rans::Tables(cumulative, offsets, minimums, precision);
}

const rans::Tables& tables_of(int kind, int precision) {
    static std::unique_ptr<rans::Tables> made[4][17];
    auto& found = made[kind][precision];
    if (!found) found = std::make_unique<rans::Tables>(make_tables(kind, precision));
    return *found;
}

std::vector<uint8_t> make_indexes(const Input& input, int count) {
    std::vector<uint8_t> indexes(input.n);
    for (size_t i = 0; i < indexes.size(); ++i) {
        const uint32_t random = mixed(static_cast<uint32_t>(i) + 1);
        const bool skipped = input.pattern == 1 ? random % 3 == 0 : input.pattern >= 2 && random % 16 != 0;
        indexes[i] =
            skipped ? 255 : static_cast<uint8_t>((input.pattern == 3 ? i / 64 : random) % static_cast<unsigned>(count));
    }
    return indexes;
}

// What a decoder makes of the payload: symbols of each section, or the error; and where it stood.
std::string decoded(const Input& input, const uint8_t* payload, size_t size, Isa isa) {
    std::string result;
    try {
        rans::Decoder decoder(payload, size, isa);
        const rans::Tables& tables = tables_of(input.tables, decoder.info().precision);
        const std::vector<uint8_t> indexes = make_indexes(input, tables.count());
        std::vector<int16_t> symbols(input.n);
        const size_t first = input.two_sections ? input.n / 3 : input.n;
        decoder.read(indexes.data(), first, tables, symbols.data());
        if (input.two_sections) decoder.read(indexes.data() + first, input.n - first, tables, symbols.data() + first);
        result.assign(reinterpret_cast<const char*>(symbols.data()), 2 * symbols.size());
        result += std::to_string(decoder.position());
        decoder.finish();
    } catch (const CorruptStream& error) {
        result += error.what();
    }
    return result;
}

// The bytes that an encoder makes of the input's, read as symbols.
std::string encoded(const Input& input, int precision, int lanes, Isa isa) {
    const rans::Tables& tables = tables_of(input.tables, precision);
    const std::vector<uint8_t> indexes = make_indexes(input, tables.count());
    std::vector<int16_t> symbols(input.n, 0);
    for (size_t i = 0; i < input.n && input.size > 0; ++i) {
        if (indexes[i] == 255) continue;
        const uint8_t low = input.payload[i % input.size], high = input.payload[(i + 1) % input.size];
        // Mostly small; now and then any value, -32768 and its error included.
        symbols[i] = static_cast<int16_t>(high > 250 ? low << 8 | high : static_cast<int8_t>(low) / (1 + high % 64));
    }
    try {
        const auto bytes = rans::encode({{symbols.data(), indexes.data(), input.n, &tables}}, lanes, isa);
        return {bytes.begin(), bytes.end()};
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
}

void require_equal(const std::string& a, const std::string& b, const char* what, Isa isa) {
    if (a == b) return;
    fprintf(stderr, "%s: %s differs from portable (%zu and %zu bytes)\n", what, isa_name(isa), b.size(), a.size());
    abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 3) return 0;
    // A copy of its own, so that a read beyond its end is one beyond an allocation.
    const std::vector<uint8_t> payload(data + 3, data + size);
    Input input{data[0] & 3,
                (data[0] >> 2) & 3,
                (data[0] & 16) != 0,
                (data[0] & 32) != 0,
                static_cast<size_t>((data[1] | data[2] << 8) & 0x3FFF),
                payload.data(),
                payload.size()};
    if (!input.encode) {
        const std::string right = decoded(input, payload.data(), payload.size(), Isa::portable);
        for (Isa isa : processor().supported) {
            require_equal(right, decoded(input, payload.data(), payload.size(), isa), "decode", isa);
        }
        return 0;
    }
    const int precision = 1 + (payload.empty() ? 15 : payload[0] & 15);
    const int lanes = payload.empty() || payload[0] >> 5 == 7 ? 0 : 1 << (payload[0] >> 5);
    const std::string right = encoded(input, precision, lanes, Isa::portable);
    input.two_sections = false;
    for (Isa isa : processor().supported) {
        require_equal(right, encoded(input, precision, lanes, isa), "encode", isa);
        const uint8_t* bytes = reinterpret_cast<const uint8_t*>(right.data());
        require_equal(decoded(input, bytes, right.size(), Isa::portable), decoded(input, bytes, right.size(), isa),
                      "decode what was encoded", isa);
    }
    return 0;
}
