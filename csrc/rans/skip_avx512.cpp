// Compiled with AVX-512: leaving out and putting back elements that are SKIP. 16 at a time, since compressing bytes
// needs VBMI2, which not every processor with AVX-512 has.
#include <immintrin.h>

#include "kernels.h"

namespace sodec::rans {
namespace {

constexpr int kWide = 16;
constexpr size_t kInRegisters = 64;  // tables

inline __mmask16 coded_mask(__m128i indexes) { return _mm_cmpneq_epi8_mask(indexes, _mm_set1_epi8(-1)); }

inline __m128i load_indexes(const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }

inline __m512i load_values(const int16_t* from) {
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

// 64 numbers in registers, looked up without memory.
struct Lookup64 {
    __m512i parts[4];

    __m512i at(__m512i index, __mmask16 upper) const {
        return _mm512_mask_blend_epi32(upper, _mm512_permutex2var_epi32(parts[0], index, parts[1]),
                                       _mm512_permutex2var_epi32(parts[2], index, parts[3]));
    }
};

}  // namespace

size_t compact_avx512(const uint8_t* indexes, size_t n, uint8_t* dense) {
    uint8_t* to = dense;
    size_t i = 0;
    for (; i + kWide <= n; i += kWide) {
        const __m128i here = load_indexes(indexes + i);
        const __mmask16 coded = coded_mask(here);
        const __m512i together = _mm512_maskz_compress_epi32(coded, _mm512_cvtepu8_epi32(here));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(together));
        to += _mm_popcnt_u32(coded);
    }
    return static_cast<size_t>(to - dense) + compact_portable(indexes + i, n - i, to);
}

void expand_avx512(const uint8_t* indexes, size_t n, const int16_t* dense, int16_t* values) {
    size_t i = 0;
    for (; i + kWide <= n; i += kWide) {
        const __mmask16 coded = coded_mask(load_indexes(indexes + i));
        const __m512i apart = _mm512_maskz_expand_epi32(coded, load_values(dense));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + i), _mm512_cvtepi32_epi16(apart));
        dense += _mm_popcnt_u32(coded);
    }
    expand_portable(indexes + i, n - i, dense, values + i);
}

size_t look_up_avx512(const LookUpRun* run) {
    if (run->count > static_cast<int>(kInRegisters)) return look_up_portable(run);
    Lookup64 firsts, ranges;  // ranges: minimum and escape, as 16 bits each
    for (int part = 0; part < 4; ++part) {
        const __m512i a = _mm512_loadu_si512(run->tables + part * kWide);
        const __m512i b = _mm512_loadu_si512(run->tables + part * kWide + kWide / 2);
        const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        firsts.parts[part] = _mm512_permutex2var_epi32(a, even, b);
        ranges.parts[part] = _mm512_permutex2var_epi32(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
    }
    __m512i escapes = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(kEscapeId)),
                                       _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    uint32_t* to = run->ids;
    size_t i = 0;
    for (; i + kWide <= run->n; i += kWide) {
        const __m128i here = load_indexes(run->indexes + i);
        const __mmask16 coded = coded_mask(here);
        const __m512i index = _mm512_cvtepu8_epi32(here);
        const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
        const __m512i range = ranges.at(index, upper);
        const __m512i minimum = _mm512_srai_epi32(_mm512_slli_epi32(range, 16), 16);
        const __m512i number = _mm512_sub_epi32(load_values(run->values + i), minimum);
        const __mmask16 inside = _mm512_cmplt_epu32_mask(number, _mm512_srli_epi32(range, 16));
        const __m512i ids = _mm512_mask_add_epi32(escapes, inside, number, firsts.at(index, upper));
        _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(coded, ids));
        to += _mm_popcnt_u32(coded);
        escapes = _mm512_add_epi32(escapes, _mm512_set1_epi32(kWide));
    }
    return static_cast<size_t>(to - run->ids) + look_up_rest(run, i, to);
}

}  // namespace sodec::rans
