// Compiled with -mavx2. Products are of 16-bit pairs (vpmaddwd, exact), never the saturating 8-bit vpmaddubsw.
#include <immintrin.h>
#include <string.h>

#include "accumulate.h"

namespace sodec {
namespace {

// Not _mm_loadu_si32: GCC before 11.3 puts its value in the wrong lane (PR 99754), and before 11 has none.
inline int32_t load32(const void* from) {
    int32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

// PIXELS x 16 outputs in registers: 4 x 2 sums, 2 weights and a broadcast fit the 16 that there are.
template <int PIXELS>
inline void block(const AccumulateRow* row, int pixel, int first_output) {
    __m256i sums[PIXELS][2];
    const __m256i* bias = reinterpret_cast<const __m256i*>(row->bias + first_output);
    for (int p = 0; p < PIXELS; ++p) {
        sums[p][0] = _mm256_loadu_si256(bias);
        sums[p][1] = _mm256_loadu_si256(bias + 1);
    }
    const int16_t* w = static_cast<const int16_t*>(row->weights) + 2 * first_output;
    for (int ky = 0; ky < row->taps; ++ky) {
        const uint16_t* a = static_cast<const uint16_t*>(row->rows[ky]) + static_cast<int64_t>(pixel) * row->inputs;
        for (int i = 0; i < row->taps * row->inputs; i += 2, w += 2 * row->outputs) {
            const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
            const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 16));
            for (int p = 0; p < PIXELS; ++p) {
                const void* pair = a + static_cast<int64_t>(p) * row->inputs + i;
                const __m256i both = _mm256_set1_epi32(load32(pair));
                sums[p][0] = _mm256_add_epi32(sums[p][0], _mm256_madd_epi16(both, w0));
                sums[p][1] = _mm256_add_epi32(sums[p][1], _mm256_madd_epi16(both, w1));
            }
        }
    }
    for (int p = 0; p < PIXELS; ++p) {
        __m256i* out =
            reinterpret_cast<__m256i*>(row->sums + static_cast<int64_t>(pixel + p) * row->outputs + first_output);
        _mm256_storeu_si256(out, sums[p][0]);
        _mm256_storeu_si256(out + 1, sums[p][1]);
    }
}

// Four products in the low halves of 64 bits: there is no arithmetic shift of those, so they are made unsigned for it.
inline __m256i requantised(__m256i sums, __m256i multiplier, const RequantiseRow* row) {
    const __m256i sign = _mm256_set1_epi64x(INT64_MIN);
    const __m256i half = _mm256_set1_epi64x(int64_t{1} << (row->shift - 1));
    const __m256i low = _mm256_set1_epi64x(row->low), high = _mm256_set1_epi64x(row->high);
    __m256i r = _mm256_add_epi64(_mm256_mul_epi32(sums, multiplier), half);
    r = _mm256_srli_epi64(_mm256_xor_si256(r, sign), row->shift);
    r = _mm256_sub_epi64(r, _mm256_set1_epi64x(int64_t{1} << (63 - row->shift)));
    r = _mm256_blendv_epi8(r, low, _mm256_cmpgt_epi64(low, r));
    return _mm256_blendv_epi8(r, high, _mm256_cmpgt_epi64(r, high));
}

}  // namespace

void accumulate_row_avx2(const AccumulateRow* row) {
    for (int o = 0; o < row->outputs; o += kOutputBlock) {
        int p = 0;
        for (; p + 4 <= row->pixels; p += 4) block<4>(row, p, o);
        for (; p < row->pixels; ++p) block<1>(row, p, o);
    }
}

void requantise_row_avx2(const RequantiseRow* row) {
    for (int p = 0; p < row->pixels; ++p) {
        for (int o = 0; o < row->outputs; o += 8) {
            __m256i* at = reinterpret_cast<__m256i*>(row->sums + static_cast<int64_t>(p) * row->outputs + o);
            const __m256i sums = _mm256_loadu_si256(at);
            const __m256i multiplier = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row->multiplier + o));
            const __m256i even = requantised(sums, multiplier, row);
            const __m256i odd = requantised(_mm256_srli_epi64(sums, 32), _mm256_srli_epi64(multiplier, 32), row);
            _mm256_storeu_si256(at, _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA));
        }
    }
}

}  // namespace sodec
