#include "cpu.h"

#include <cstdint>
#include <cstdlib>

#include "errors.h"

#ifdef SODEC_X86
#ifdef _MSC_VER
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace sodec {
namespace {

#ifdef SODEC_X86

struct Registers {
    uint32_t a, b, c, d;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r{0, 0, 0, 0};
#ifdef _MSC_VER
    int out[4];
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {static_cast<uint32_t>(out[0]), static_cast<uint32_t>(out[1]), static_cast<uint32_t>(out[2]),
         static_cast<uint32_t>(out[3])};
#else
    __cpuid_count(leaf, subleaf, r.a, r.b, r.c, r.d);
#endif
    return r;
}

uint64_t xcr0() {
#ifdef _MSC_VER
    return _xgetbv(0);
#else
    uint32_t low, high;
    // Spelt as an instruction, because the intrinsic needs -mxsave and this file is baseline code.
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

constexpr bool bit(uint64_t value, int n) { return (value >> n) & 1; }

Processor detect() {
    Processor detected{{Isa::portable}, false, false};
    if (cpuid(0, 0).a < 7) return detected;
    const Registers leaf1 = cpuid(1, 0);
    if (!bit(leaf1.c, 27)) return detected;  // OSXSAVE: without it xgetbv is illegal
    // A processor may have vector registers that the operating system does not save; XCR0 says which it saves.
    const uint64_t saved = xcr0();
    const bool ymm_saved = (saved & 0x6) == 0x6;
    const bool zmm_saved = (saved & 0xE6) == 0xE6;
    const Registers leaf7 = cpuid(7, 0);
    const bool avx2 = bit(leaf1.c, 28) && bit(leaf7.b, 5);
    if (!ymm_saved || !avx2) return detected;
    detected.supported.push_back(Isa::avx2);
    const bool avx512 = bit(leaf7.b, 16) && bit(leaf7.b, 17) && bit(leaf7.b, 30) && bit(leaf7.b, 31);  // F DQ BW VL
    const bool vnni = bit(leaf7.c, 11);
    if (zmm_saved && avx512 && vnni) detected.supported.push_back(Isa::avx512vnni);
    const bool tiles_saved = (saved & 0x60000) == 0x60000;
    const bool bf16 = leaf7.a >= 1 && bit(cpuid(7, 1).a, 5);  // leaf 7 says in EAX how many subleaves it has
    detected.avx512_bf16 = zmm_saved && avx512 && bf16;
    detected.amx_bf16 = tiles_saved && bit(leaf7.d, 22);
    return detected;
}

#else

Processor detect() { return {{Isa::portable}, false, false}; }

#endif

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512vnni: return "avx512vnni";
        default: return "portable";
    }
}

// The order of `supported` is by measurement, in millions of symbols a second at 0.25 bit (32 lanes, one Zen 4 core;
// benchmarks/bench_rans.py): decode 1150 AVX-512, 910 AVX2, 330 portable; encode 1070, 760, 280. No rANS kernel uses
// gathers, which microcode has made slow on some processors with AVX-512.
const Processor& processor() {
    static const Processor detected = detect();
    return detected;
}

Isa selected_isa() {
    const char* forced = std::getenv("SODEC_CPU");
    if (forced == nullptr || *forced == '\0') return processor().supported.back();
    const std::string name(forced);
    std::string names;
    for (Isa isa : processor().supported) {
        if (name == isa_name(isa)) return isa;
        names += names.empty() ? isa_name(isa) : std::string(", ") + isa_name(isa);
    }
    throw DeviceFailure("SODEC_CPU=" + name + " can't be served here; this build and processor have: " + names);
}

}  // namespace sodec
