// Compiled with -mavx2: 8 lanes in a vector.
#include <immintrin.h>

#include "kernels.h"
#include "lane_orders.h"

namespace sodec::rans {
namespace {

constexpr int kWide = 8;
constexpr LaneOrders kToTheTop = make_members(true);

// The entries of 8 symbols, as their lower and upper halves. Scalar loads and not a gather: see decode_avx512.cpp.
inline void load_symbols(const SymbolEntry* symbols, const uint32_t* ids, __m256i* low, __m256i* high) {
    const auto pair = [&](int i) {
        const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(symbols + ids[i]));
        return _mm_castpd_ps(_mm_loadh_pd(first, reinterpret_cast<const double*>(symbols + ids[i + 1])));
    };
    const __m256 a = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(0)), pair(4), 1);
    const __m256 b = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(2)), pair(6), 1);
    *low = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
    *high = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
}

// The upper halves of 8 products of 32 bits.
inline __m256i multiply_high(__m256i a, __m256i b) {
    const __m256i even = _mm256_mul_epu32(a, b);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

inline __m256i at_least(__m256i a, __m256i b) { return _mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a); }

template <int VECTORS>
size_t encode(EncodeRun* run) {
    const __m128i precision = _mm_cvtsi32_si128(run->precision);
    const __m128i limit_shift = _mm_cvtsi32_si128(32 - run->precision);
    const __m256i low16 = _mm256_set1_epi32(0xFFFF);
    const __m256i one = _mm256_set1_epi32(1);
    uint32_t* const states = run->states;
    uint16_t* front = run->front;
    size_t left = run->groups;
    for (; left > 0; --left) {
        const uint32_t* ids = run->ids + (left - 1) * kWide * VECTORS;
        __m256i all = _mm256_setzero_si256();
        for (int v = 0; v < VECTORS; ++v) {
            all = _mm256_or_si256(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ids + kWide * v)));
        }
        if (_mm256_movemask_ps(_mm256_castsi256_ps(all)) != 0) break;  // an escape
        for (int v = VECTORS - 1; v >= 0; --v) {
            __m256i reciprocal, interval;
            load_symbols(run->symbols, ids + kWide * v, &reciprocal, &interval);
            const __m256i start = _mm256_and_si256(interval, low16);
            const __m256i frequency = _mm256_add_epi32(_mm256_srli_epi32(interval, 16), one);

            // A frequency of 2^precision has the limit 2^32, which is 0 in 32 bits; minus 1 it is the largest state.
            __m256i state = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + kWide * v));
            const __m256i highest = _mm256_sub_epi32(_mm256_sll_epi32(frequency, limit_shift), one);
            const __m256i fits = at_least(highest, state);
            const unsigned full = 0xFF ^ static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(fits)));
            // The lower halves of full states become words, in order, at the end of a vector that ends at the front.
            const __m256i order =
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kToTheTop.of + full)));
            const __m256i words = _mm256_and_si256(_mm256_permutevar8x32_epi32(state, order), low16);
            const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(front - kWide), _mm256_castsi256_si128(packed));
            front -= _mm_popcnt_u32(full);
            state = _mm256_blendv_epi8(_mm256_srli_epi32(state, 16), state, fits);

            __m256i quotient = multiply_high(state, reciprocal);
            __m256i rest = _mm256_sub_epi32(state, _mm256_mullo_epi32(quotient, frequency));
            const __m256i one_less = at_least(rest, frequency);
            quotient = _mm256_sub_epi32(quotient, one_less);
            rest = _mm256_sub_epi32(rest, _mm256_and_si256(one_less, frequency));
            state = _mm256_add_epi32(_mm256_sll_epi32(quotient, precision), _mm256_add_epi32(rest, start));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + kWide * v), state);
        }
    }
    run->front = front;
    return run->groups - left;
}

}  // namespace

size_t encode_groups_avx2(EncodeRun* run) {
    switch (run->lanes) {
        case 8: return encode<1>(run);
        case 16: return encode<2>(run);
        case 32: return encode<4>(run);
        case 64: return encode<8>(run);
        default: return 0;
    }
}

}  // namespace sodec::rans
