// Encodes and decodes symbols of its own with every instruction set, and fails unless all bytes are the ones that they
// were on the machine and with the compiler that wrote kExpected. README.md tells how to build it for several
// compilers.
#include <stdint.h>
#include <stdio.h>

#include <algorithm>
#include <vector>

#include "cpu.h"
#include "rans/decoder.h"
#include "rans/encoder.h"

using namespace sodec;

namespace {

constexpr uint64_t kExpected = 0x8bde2977513f6e1b;

// The same integers everywhere, which the standard's distributions do not promise.
struct Random {
    uint64_t state = 1;

    int below(int limit) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<int>((state >> 33) % static_cast<uint64_t>(limit));
    }
};

rans::Tables make_tables(Random& random, int count, int values, int precision) {
    std::vector<int32_t> cumulative, offsets{0}, minimums;
    for (int t = 0; t < count; ++t) {
        int32_t left = (1 << precision) - values - 1;
        cumulative.push_back(0);
        for (int s = 0; s <= values; ++s) {
            const int32_t share = s == values ? left : random.below(left / 2 + 1);
            left -= share;
            cumulative.push_back(cumulative.back() + 1 + share);
        }
        offsets.push_back(static_cast<int32_t>(cumulative.size()));
        minimums.push_back(-values / 2);
    }
    return rans::Tables(cumulative, offsets, minimums, precision);
}

}  // namespace

int main() {
    Random random;
    uint64_t checksum = 14695981039346656037u;  // FNV-1a
    for (int precision = 1; precision <= 16; ++precision) {
        for (int lanes : {1, 2, 4, 8, 16, 32, 64, 0}) {
            for (int most : {3, 40, 4096}) {
                const int values = std::min((1 << precision) - 1, most);
                const rans::Tables tables = make_tables(random, most == 40 ? 74 : 4, values, precision);
                const size_t n = static_cast<size_t>(3000 + random.below(3000));
                std::vector<uint8_t> indexes(n);
                std::vector<int16_t> symbols(n, 0), read(n);
                for (size_t i = 0; i < n; ++i) {
                    indexes[i] = static_cast<uint8_t>(random.below(5) == 0 ? 255 : random.below(tables.count()));
                    if (indexes[i] == 255) continue;
                    const bool any = random.below(100) == 0;
                    symbols[i] =
                        static_cast<int16_t>(any ? random.below(65535) - 32767 : random.below(values + 2) - values / 2);
                }
                const std::vector<rans::Section> sections{{symbols.data(), indexes.data(), n, &tables}};
                const std::vector<uint8_t> right = rans::encode(sections, lanes, Isa::portable);
                for (uint8_t byte : right) checksum = (checksum ^ byte) * 1099511628211u;
                for (Isa isa : processor().supported) {
                    rans::Decoder decoder(right.data(), right.size(), isa);
                    decoder.read(indexes.data(), n, tables, read.data());
                    decoder.finish();
                    if (read != symbols || rans::encode(sections, lanes, isa) != right) {
                        printf("%s differs: %d bits, %d lanes\n", isa_name(isa), precision, lanes);
                        return 1;
                    }
                }
            }
        }
    }
    printf("%016llx\n", static_cast<unsigned long long>(checksum));
    return checksum == kExpected ? 0 : 1;
}
