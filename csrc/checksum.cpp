#include "checksum.h"

#include <array>

namespace sodec {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;

// Row k: the register after a byte and k bytes of zero, so that eight bytes are looked up side by side.
using Rows = std::array<std::array<uint32_t, 256>, 8>;

Rows make_rows() {
    Rows rows{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? kPolynomial : 0);
        rows[0][byte] = value;
    }
    for (size_t k = 1; k < rows.size(); ++k) {
        for (size_t byte = 0; byte < 256; ++byte) {
            const uint32_t before = rows[k - 1][byte];
            rows[k][byte] = (before >> 8) ^ rows[0][before & 0xFF];
        }
    }
    return rows;
}

}  // namespace

uint32_t crc32c(const uint8_t* data, size_t size) {
    static const Rows rows = make_rows();
    uint32_t value = 0xFFFFFFFF;
    for (; size >= 8; size -= 8, data += 8) {
        uint32_t next = 0;
        for (size_t i = 0; i < 4; ++i) {
            next ^= rows[7 - i][(value >> (8 * i) & 0xFF) ^ data[i]] ^ rows[3 - i][data[4 + i]];
        }
        value = next;
    }
    for (; size > 0; --size, ++data) value = (value >> 8) ^ rows[0][(value ^ *data) & 0xFF];
    return value ^ 0xFFFFFFFF;
}

}  // namespace sodec
