// CRC-32C (Castagnoli), the check of the .sodec format: reflected polynomial 0x82F63B78, initial value and final
// exclusive-or 0xFFFFFFFF (RFC 3720, appendix B.4). zlib's CRC-32 is another polynomial.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sodec {

uint32_t crc32c(const uint8_t* data, size_t size);

}  // namespace sodec
