// Compiled with AVX-512 and VNNI. vpdpbusd adds four 8-bit products to an int32 exactly (vpdpbusds would saturate).
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

// PIXELS x 16 BLOCKS outputs in registers. With two blocks, products and not loads take the time.
template <int PIXELS, int BLOCKS>
inline void block(const AccumulateRow* row, int pixel, int first_output) {
    __m512i sums[PIXELS][BLOCKS];
    for (int p = 0; p < PIXELS; ++p) {
        for (int b = 0; b < BLOCKS; ++b) sums[p][b] = _mm512_loadu_si512(row->bias + first_output + 16 * b);
    }
    const int8_t* w = static_cast<const int8_t*>(row->weights) + 4 * first_output;
    for (int ky = 0; ky < row->taps; ++ky) {
        const uint8_t* a = static_cast<const uint8_t*>(row->rows[ky]) + static_cast<int64_t>(pixel) * row->inputs;
        for (int i = 0; i < row->taps * row->inputs; i += 4, w += 4 * row->outputs) {
            __m512i weights[BLOCKS];
            for (int b = 0; b < BLOCKS; ++b) weights[b] = _mm512_loadu_si512(w + 64 * b);
            for (int p = 0; p < PIXELS; ++p) {
                const void* quad = a + static_cast<int64_t>(p) * row->inputs + i;
                const __m512i four = _mm512_set1_epi32(load32(quad));
                for (int b = 0; b < BLOCKS; ++b) sums[p][b] = _mm512_dpbusd_epi32(sums[p][b], four, weights[b]);
            }
        }
    }
    for (int p = 0; p < PIXELS; ++p) {
        int32_t* out = row->sums + static_cast<int64_t>(pixel + p) * row->outputs + first_output;
        for (int b = 0; b < BLOCKS; ++b) _mm512_storeu_si512(out + 16 * b, sums[p][b]);
    }
}

template <int BLOCKS>
inline void outputs(const AccumulateRow* row, int first_output) {
    int p = 0;
    for (; p + 8 <= row->pixels; p += 8) block<8, BLOCKS>(row, p, first_output);
    for (; p + 4 <= row->pixels; p += 4) block<4, BLOCKS>(row, p, first_output);
    for (; p < row->pixels; ++p) block<1, BLOCKS>(row, p, first_output);
}

// Eight products, in the low halves of 64 bits.
inline __m512i requantised(__m512i sums, __m512i multiplier, const RequantiseRow* row) {
    const __m512i half = _mm512_set1_epi64(int64_t{1} << (row->shift - 1));
    __m512i r = _mm512_add_epi64(_mm512_mul_epi32(sums, multiplier), half);
    r = _mm512_sra_epi64(r, _mm_cvtsi32_si128(row->shift));
    return _mm512_min_epi64(_mm512_max_epi64(r, _mm512_set1_epi64(row->low)), _mm512_set1_epi64(row->high));
}

}  // namespace

void accumulate_row_avx512vnni(const AccumulateRow* row) {
    int o = 0;
    for (; o + 32 <= row->outputs; o += 32) outputs<2>(row, o);
    if (o < row->outputs) outputs<1>(row, o);
}

void requantise_row_avx512vnni(const RequantiseRow* row) {
    for (int p = 0; p < row->pixels; ++p) {
        for (int o = 0; o < row->outputs; o += 16) {
            int32_t* at = row->sums + static_cast<int64_t>(p) * row->outputs + o;
            const __m512i sums = _mm512_loadu_si512(at), multiplier = _mm512_loadu_si512(row->multiplier + o);
            const __m512i even = requantised(sums, multiplier, row);
            const __m512i odd = requantised(_mm512_srli_epi64(sums, 32), _mm512_srli_epi64(multiplier, 32), row);
            _mm512_storeu_si512(at, _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32)));
        }
    }
}

}  // namespace sodec
