// Compiled with AVX-512: 16 lanes in a vector.
#include <immintrin.h>

#include "kernels.h"

namespace sodec::rans {
namespace {

constexpr int kWide = 16;

// The entries of 16 symbols, as their lower and upper halves. Scalar loads and not a gather: see decode_avx512.cpp.
inline void load_symbols(const SymbolEntry* symbols, const uint32_t* ids, __m512i* low, __m512i* high) {
    const auto pair = [&](int i) {
        const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(symbols + ids[i]));
        return _mm_castpd_ps(_mm_loadh_pd(first, reinterpret_cast<const double*>(symbols + ids[i + 1])));
    };
    const __m256 a0 = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(0)), pair(4), 1);
    const __m256 b0 = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(2)), pair(6), 1);
    const __m256 a1 = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(8)), pair(12), 1);
    const __m256 b1 = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(10)), pair(14), 1);
    const __m512 a = _mm512_insertf32x8(_mm512_castps256_ps512(a0), a1, 1);
    const __m512 b = _mm512_insertf32x8(_mm512_castps256_ps512(b0), b1, 1);
    *low = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));
    *high = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD));
}

// The upper halves of 16 products of 32 bits.
inline __m512i multiply_high(__m512i a, __m512i b) {
    const __m512i even = _mm512_mul_epu32(a, b);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    return _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
}

template <int VECTORS>
size_t encode(EncodeRun* run) {
    const __m128i precision = _mm_cvtsi32_si128(run->precision);
    const __m128i limit_shift = _mm_cvtsi32_si128(32 - run->precision);
    const __m512i low16 = _mm512_set1_epi32(0xFFFF);
    const __m512i one = _mm512_set1_epi32(1);
    const __m512i lane_numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint16_t* front = run->front;
    __m512i states[VECTORS];
    for (int v = 0; v < VECTORS; ++v) states[v] = _mm512_loadu_si512(run->states + kWide * v);
    size_t left = run->groups;
    for (; left > 0; --left) {
        const uint32_t* ids = run->ids + (left - 1) * kWide * VECTORS;
        __m512i all = _mm512_loadu_si512(ids);
        for (int v = 1; v < VECTORS; ++v) all = _mm512_or_si512(all, _mm512_loadu_si512(ids + kWide * v));
        if (_mm512_movepi32_mask(all) != 0) break;  // an escape
#ifdef __GNUC__
#pragma GCC unroll 4  // states stay in registers
#endif
        for (int v = VECTORS - 1; v >= 0; --v) {
            __m512i reciprocal, interval;
            load_symbols(run->symbols, ids + kWide * v, &reciprocal, &interval);
            const __m512i start = _mm512_and_si512(interval, low16);
            const __m512i frequency = _mm512_add_epi32(_mm512_srli_epi32(interval, 16), one);

            // A frequency of 2^precision has the limit 2^32, which is 0 in 32 bits; minus 1 it is the largest state.
            __m512i state = states[v];
            const __m512i highest = _mm512_sub_epi32(_mm512_sll_epi32(frequency, limit_shift), one);
            const __mmask16 full = _mm512_cmpgt_epu32_mask(state, highest);
            // The lower halves of full states become words, in order, at the end of a vector that ends at the front.
            const __m512i words = _mm512_maskz_compress_epi32(full, state);
            const int count = _mm_popcnt_u32(full);
            const __m512i top =
                _mm512_permutexvar_epi32(_mm512_add_epi32(lane_numbers, _mm512_set1_epi32(count)), words);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(front - kWide), _mm512_cvtepi32_epi16(top));
            front -= count;
            state = _mm512_mask_srli_epi32(state, full, state, 16);

            __m512i quotient = multiply_high(state, reciprocal);
            __m512i rest = _mm512_sub_epi32(state, _mm512_mullo_epi32(quotient, frequency));
            const __mmask16 one_less = _mm512_cmpge_epu32_mask(rest, frequency);
            quotient = _mm512_mask_add_epi32(quotient, one_less, quotient, one);
            rest = _mm512_mask_sub_epi32(rest, one_less, rest, frequency);
            states[v] = _mm512_add_epi32(_mm512_sll_epi32(quotient, precision), _mm512_add_epi32(rest, start));
        }
    }
    for (int v = 0; v < VECTORS; ++v) _mm512_storeu_si512(run->states + kWide * v, states[v]);
    run->front = front;
    return run->groups - left;
}

}  // namespace

size_t encode_groups_avx512(EncodeRun* run) {
    switch (run->lanes) {
        case 16: return encode<1>(run);
        case 32: return encode<2>(run);
        case 64: return encode<4>(run);
        default: return 0;
    }
}

}  // namespace sodec::rans
