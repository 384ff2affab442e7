// Compiled with -mavx2: 8 lanes in a vector, VECTORS of them independent of each other.
#include <immintrin.h>

#include "lane_orders.h"
#include "scalar_coder.h"

namespace sodec::rans {
namespace {

constexpr int kWide = 8;
constexpr LaneOrders kRanks = make_ranks();

// 8 buckets of 64 bits, as their lower and upper halves. Scalar loads and not a gather: see decode_avx512.cpp.
inline void load_buckets(const BucketEntry* buckets, __m256i at, __m256i* low, __m256i* high) {
    alignas(32) uint32_t n[kWide];
    _mm256_store_si256(reinterpret_cast<__m256i*>(n), at);
#ifdef __GNUC__
    __asm__("" : "+m"(n));  // else GCC takes the numbers out of the vector one by one
#endif
    const auto pair = [&](int i) {
        const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(buckets + n[i]));
        return _mm_castpd_ps(_mm_loadh_pd(first, reinterpret_cast<const double*>(buckets + n[i + 1])));
    };
    const __m256 a = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(0)), pair(4), 1);
    const __m256 b = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(2)), pair(6), 1);
    *low = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
    *high = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
}

template <int VECTORS>
size_t decode(DecodeRun* run) {
    const __m256i slots = _mm256_set1_epi32((1 << run->precision) - 1);
    const __m128i precision = _mm_cvtsi32_si128(run->precision);
    const __m128i bucket_bits = _mm_cvtsi32_si128(run->bucket_bits);
    const __m128i bucket_shift = _mm_cvtsi32_si128(run->precision - run->bucket_bits);
    const __m256i low16 = _mm256_set1_epi32(0xFFFF);
    const __m256i one = _mm256_set1_epi32(1);
    const uint8_t* next = run->next;
    const uint8_t* indexes = run->indexes;
    int16_t* values = run->values;
    uint32_t* const states = run->states;
    size_t group = 0;
    for (; group < run->groups && run->end - next >= 2 * kWide * VECTORS; ++group) {
        const uint8_t* word = next;
        __m256i after[VECTORS];
#ifdef __GNUC__
#pragma GCC unroll 8
#endif
        for (int v = 0; v < VECTORS; ++v) {
            const __m256i old = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + kWide * v));
            const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(indexes + kWide * v));
            const __m256i slot = _mm256_and_si256(old, slots);
            const __m256i quotient = _mm256_srl_epi32(old, precision);
            const __m256i table = _mm256_sll_epi32(_mm256_cvtepu8_epi32(bytes), bucket_bits);
            __m256i low, high;
            load_buckets(run->buckets, _mm256_add_epi32(table, _mm256_srl_epi32(slot, bucket_shift)), &low, &high);

            const __m256i cut = _mm256_and_si256(low, low16);
            const __m256i before = _mm256_srli_epi32(low, 16);
            __m256i value = _mm256_srai_epi32(high, 16);
            const __m256i many = _mm256_cmpeq_epi32(value, _mm256_set1_epi32(kManyValue));
            const __m256i first = _mm256_cmpgt_epi32(cut, slot);  // of the two symbols
            const __m256i frequency = _mm256_blendv_epi8(_mm256_and_si256(high, low16), before, first);  // less 1
            // From the start of the symbol: the first one begins `before` + 1 ahead of the cut.
            const __m256i ahead = _mm256_and_si256(first, _mm256_add_epi32(before, one));
            const __m256i within = _mm256_add_epi32(_mm256_sub_epi32(slot, cut), ahead);
            value = _mm256_add_epi32(_mm256_add_epi32(value, one), first);
            __m256i state = _mm256_add_epi32(_mm256_mullo_epi32(frequency, quotient), quotient);
            state = _mm256_add_epi32(state, within);

            unsigned left = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(many)));
            if (left != 0) {  // rare
                alignas(32) uint32_t new_states[kWide];
                alignas(32) int32_t new_values[kWide];
                _mm256_store_si256(reinterpret_cast<__m256i*>(new_states), state);
                _mm256_store_si256(reinterpret_cast<__m256i*>(new_values), value);
                do {
                    const int lane = first_lane(left);
                    new_states[lane] = states[kWide * v + lane];
                    new_values[lane] = read_symbol(*run, indexes[kWide * v + lane], new_states[lane]);
                    if (new_values[lane] == kEscape) goto stop;
                    left &= left - 1;
                } while (left != 0);
                state = _mm256_load_si256(reinterpret_cast<const __m256i*>(new_states));
                value = _mm256_load_si256(reinterpret_cast<const __m256i*>(new_values));
            }

            const __m256i is_low = _mm256_cmpeq_epi32(_mm256_srli_epi32(state, 16), _mm256_setzero_si256());
            const unsigned low_lanes = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(is_low)));
            const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(word));
            const __m256i ranks =
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kRanks.of + low_lanes)));
            const __m256i filled = _mm256_or_si256(_mm256_slli_epi32(state, 16),
                                                   _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(words), ranks));
            after[v] = _mm256_blendv_epi8(state, filled, is_low);
            word += 2 * _mm_popcnt_u32(low_lanes);
            const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(value, value), 0x08);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(values + kWide * v), _mm256_castsi256_si128(packed));
        }
        for (int v = 0; v < VECTORS; ++v) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + kWide * v), after[v]);
        }
        next = word;
        indexes += kWide * VECTORS;
        values += kWide * VECTORS;
    }
stop:
    run->next = next;
    return group;
}

}  // namespace

size_t decode_groups_avx2(DecodeRun* run) {
    switch (run->lanes) {
        case 8: return decode<1>(run);
        case 16: return decode<2>(run);
        case 32: return decode<4>(run);
        case 64: return decode<8>(run);
        default: return 0;
    }
}

}  // namespace sodec::rans
