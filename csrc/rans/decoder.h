#pragma once

#include <cstddef>
#include <cstdint>

#include "../cpu.h"
#include "dispatch.h"
#include "format.h"
#include "tables.h"

namespace sodec::rans {

// Reads a payload's header alone. Throws CorruptStream where the bytes hold none.
PayloadInfo payload_info(const uint8_t* data, size_t size);

// Reads one payload, section after section. Whatever the bytes, nothing outside [data, data + size) is read.
class Decoder {
public:
    // The bytes must outlive the decoder. Throws CorruptStream where header or states are not valid.
    Decoder(const uint8_t* data, size_t size, Isa isa);

    // One section. Throws CorruptStream where the bytes are not a payload of it or the tables' precision is not the
    // payload's, InvalidTable where an index has no table. A decoder that threw reads nothing more.
    void read(const uint8_t* indexes, size_t n, const Tables& tables, int16_t* symbols);

    // Throws CorruptStream unless every byte is used and every state is what encoding started from.
    void finish() const;

    size_t position() const { return static_cast<size_t>(next_ - begin_); }
    Isa isa() const { return isa_; }
    const PayloadInfo& info() const { return info_; }

private:
    const uint8_t* begin_;
    const uint8_t* next_;
    const uint8_t* end_;
    Isa isa_;
    Kernels kernels_;
    PayloadInfo info_;
    bool failed_ = false;
    uint32_t states_[kMaxLanes];
};

}  // namespace sodec::rans
