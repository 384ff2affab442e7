// Compiled with AVX-512: 16 lanes in a vector, VECTORS of them independent of each other.
#include <immintrin.h>

#include "scalar_coder.h"

namespace sodec::rans {
namespace {

constexpr int kWide = 16;

// 16 buckets of 64 bits, as their lower and upper halves. Scalar loads beat gathers: 1130 M symbols a second against
// 1035 M with 32 lanes, 1210 M against 1060 M with 64 (Zen 4), and microcode has made gathers slow elsewhere.
inline void load_buckets(const BucketEntry* buckets, __m512i at, __m512i* low, __m512i* high) {
    alignas(64) uint32_t n[kWide];
    _mm512_store_si512(n, at);
#ifdef __GNUC__
    __asm__("" : "+m"(n));  // else GCC takes the numbers out of the vector one by one
#endif
    const auto pair = [&](int i) {
        const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(buckets + n[i]));
        return _mm_castpd_ps(_mm_loadh_pd(first, reinterpret_cast<const double*>(buckets + n[i + 1])));
    };
    __m512 a = _mm512_castps128_ps512(pair(0));
    __m512 b = _mm512_castps128_ps512(pair(2));
    const __m256 a1 = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(8)), pair(12), 1);
    const __m256 b1 = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(10)), pair(14), 1);
    const __m256 a0 = _mm256_insertf128_ps(_mm512_castps512_ps256(a), pair(4), 1);
    const __m256 b0 = _mm256_insertf128_ps(_mm512_castps512_ps256(b), pair(6), 1);
    a = _mm512_insertf32x8(_mm512_castps256_ps512(a0), a1, 1);
    b = _mm512_insertf32x8(_mm512_castps256_ps512(b0), b1, 1);
    *low = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));
    *high = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD));
}

template <int VECTORS>
size_t decode(DecodeRun* run) {
    const __m512i slots = _mm512_set1_epi32((1 << run->precision) - 1);
    const __m128i precision = _mm_cvtsi32_si128(run->precision);
    const __m128i bucket_bits = _mm_cvtsi32_si128(run->bucket_bits);
    const __m128i bucket_shift = _mm_cvtsi32_si128(run->precision - run->bucket_bits);
    const __m512i low16 = _mm512_set1_epi32(0xFFFF);
    const __m512i one = _mm512_set1_epi32(1);
    const uint8_t* next = run->next;
    const uint8_t* indexes = run->indexes;
    int16_t* values = run->values;
    __m512i states[VECTORS];
    for (int v = 0; v < VECTORS; ++v) states[v] = _mm512_loadu_si512(run->states + kWide * v);
    size_t group = 0;
    for (; group < run->groups && run->end - next >= 2 * kWide * VECTORS; ++group) {
        const uint8_t* word = next;
        __m512i after[VECTORS];
#ifdef __GNUC__
#pragma GCC unroll 4  // states stay in registers
#endif
        for (int v = 0; v < VECTORS; ++v) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(indexes + kWide * v));
            const __m512i slot = _mm512_and_si512(states[v], slots);
            const __m512i quotient = _mm512_srl_epi32(states[v], precision);
            const __m512i table = _mm512_sll_epi32(_mm512_cvtepu8_epi32(bytes), bucket_bits);
            __m512i low, high;
            load_buckets(run->buckets, _mm512_add_epi32(table, _mm512_srl_epi32(slot, bucket_shift)), &low, &high);

            const __m512i cut = _mm512_and_si512(low, low16);
            const __m512i before = _mm512_srli_epi32(low, 16);
            __m512i value = _mm512_srai_epi32(high, 16);
            __mmask16 many = _mm512_cmpeq_epi32_mask(value, _mm512_set1_epi32(kManyValue));
            const __mmask16 second = _mm512_cmpge_epu32_mask(slot, cut);
            const __m512i frequency = _mm512_mask_and_epi32(before, second, high, low16);  // less 1
            const __m512i first_start = _mm512_sub_epi32(_mm512_sub_epi32(cut, before), one);
            const __m512i start = _mm512_mask_mov_epi32(first_start, second, cut);
            value = _mm512_mask_add_epi32(value, second, value, one);
            __m512i state = _mm512_add_epi32(_mm512_mullo_epi32(frequency, quotient), quotient);
            state = _mm512_add_epi32(state, _mm512_sub_epi32(slot, start));

            if (many != 0) {  // rare
                alignas(64) uint32_t old[kWide];
                _mm512_store_si512(old, states[v]);
                unsigned left = many;
                do {
                    const int lane = first_lane(left);
                    uint32_t x = old[lane];
                    const int32_t symbol = read_symbol(*run, indexes[kWide * v + lane], x);
                    if (symbol == kEscape) goto stop;
                    const __mmask16 only = static_cast<__mmask16>(1 << lane);
                    state = _mm512_mask_set1_epi32(state, only, static_cast<int32_t>(x));
                    value = _mm512_mask_set1_epi32(value, only, symbol);
                    left &= left - 1;
                } while (left != 0);
            }

            const __mmask16 low_states = _mm512_cmple_epu32_mask(state, low16);
            const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word));
            const __m512i filled = _mm512_maskz_expand_epi32(low_states, _mm512_cvtepu16_epi32(words));
            after[v] = _mm512_mask_or_epi32(state, low_states, _mm512_slli_epi32(state, 16), filled);
            word += 2 * _mm_popcnt_u32(low_states);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + kWide * v), _mm512_cvtepi32_epi16(value));
        }
        for (int v = 0; v < VECTORS; ++v) states[v] = after[v];
        next = word;
        indexes += kWide * VECTORS;
        values += kWide * VECTORS;
    }
stop:
    for (int v = 0; v < VECTORS; ++v) _mm512_storeu_si512(run->states + kWide * v, states[v]);
    run->next = next;
    return group;
}

}  // namespace

size_t decode_groups_avx512(DecodeRun* run) {
    switch (run->lanes) {
        case 16: return decode<1>(run);
        case 32: return decode<2>(run);
        case 64: return decode<4>(run);
        default: return 0;
    }
}

}  // namespace sodec::rans
