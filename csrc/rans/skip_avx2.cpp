// Compiled with -mavx2: leaving out and putting back elements that are SKIP, 8 at a time.
#include <immintrin.h>

#include "kernels.h"
#include "lane_orders.h"

namespace sodec::rans {
namespace {

constexpr int kWide = 8;
constexpr LaneOrders kRanks = make_ranks();
constexpr LaneOrders kMembers = make_members(false);

inline __m128i load8(const void* from) { return _mm_loadl_epi64(static_cast<const __m128i*>(from)); }

// Bytes 0-7: -1 where the element is SKIP.
inline __m128i skipped(__m128i indexes) { return _mm_cmpeq_epi8(indexes, _mm_set1_epi8(-1)); }

inline unsigned coded_mask(__m128i indexes) {
    return 0xFF & ~static_cast<unsigned>(_mm_movemask_epi8(skipped(indexes)));
}

}  // namespace

size_t compact_avx2(const uint8_t* indexes, size_t n, uint8_t* dense) {
    uint8_t* to = dense;
    size_t i = 0;
    for (; i + kWide <= n; i += kWide) {
        const __m128i here = load8(indexes + i);
        const unsigned coded = coded_mask(here);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_shuffle_epi8(here, load8(kMembers.of + coded)));
        to += _mm_popcnt_u32(coded);
    }
    return static_cast<size_t>(to - dense) + compact_portable(indexes + i, n - i, to);
}

void expand_avx2(const uint8_t* indexes, size_t n, const int16_t* dense, int16_t* values) {
    const __m128i halves = _mm_set1_epi16(0x0100);
    size_t i = 0;
    for (; i + kWide <= n; i += kWide) {
        const __m128i here = load8(indexes + i);
        const unsigned coded = coded_mask(here);
        const __m128i rank = load8(kRanks.of + coded);
        const __m128i bytes = _mm_add_epi8(_mm_slli_epi16(_mm_unpacklo_epi8(rank, rank), 1), halves);
        const __m128i apart = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(dense)), bytes);
        const __m128i none = _mm_cvtepi8_epi16(skipped(here));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(values + i), _mm_andnot_si128(none, apart));
        dense += _mm_popcnt_u32(coded);
    }
    expand_portable(indexes + i, n - i, dense, values + i);
}

size_t look_up_avx2(const LookUpRun* run) {
    const __m256i all = _mm256_set1_epi32(-1);
    __m256i escapes =
        _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(kEscapeId)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    uint32_t* to = run->ids;
    size_t i = 0;
    for (; i + kWide <= run->n; i += kWide) {
        const uint8_t* at = run->indexes + i;
        const auto pair = [&](int k) {
            const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(run->tables + at[k]));
            return _mm_castpd_ps(_mm_loadh_pd(first, reinterpret_cast<const double*>(run->tables + at[k + 1])));
        };
        const __m256 a = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(0)), pair(4), 1);
        const __m256 b = _mm256_insertf128_ps(_mm256_castps128_ps256(pair(2)), pair(6), 1);
        const __m256i first = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
        const __m256i range = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));  // minimum and escape

        const __m256i minimum = _mm256_srai_epi32(_mm256_slli_epi32(range, 16), 16);
        const __m256i escape = _mm256_srli_epi32(range, 16);
        const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(run->values + i));
        const __m256i number = _mm256_sub_epi32(_mm256_cvtepi16_epi32(values), minimum);
        const __m256i inside = _mm256_and_si256(_mm256_cmpgt_epi32(escape, number), _mm256_cmpgt_epi32(number, all));
        const __m256i ids = _mm256_blendv_epi8(escapes, _mm256_add_epi32(first, number), inside);
        const unsigned coded = coded_mask(load8(at));
        const __m256i order = _mm256_cvtepu8_epi32(load8(kMembers.of + coded));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(ids, order));
        to += _mm_popcnt_u32(coded);
        escapes = _mm256_add_epi32(escapes, _mm256_set1_epi32(kWide));
    }
    return static_cast<size_t>(to - run->ids) + look_up_rest(run, i, to);
}

}  // namespace sodec::rans
