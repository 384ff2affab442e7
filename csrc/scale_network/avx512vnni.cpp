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

template <int PIXELS>
inline void block(const AccumulateRow* row, int pixel, int first_output) {
    __m512i sums[PIXELS];
    for (int p = 0; p < PIXELS; ++p) sums[p] = _mm512_loadu_si512(row->bias + first_output);
    const int8_t* w = static_cast<const int8_t*>(row->weights) + 4 * first_output;
    for (int ky = 0; ky < row->taps; ++ky) {
        const uint8_t* a = static_cast<const uint8_t*>(row->rows[ky]) + static_cast<int64_t>(pixel) * row->inputs;
        for (int i = 0; i < row->taps * row->inputs; i += 4, w += 4 * row->outputs) {
            const __m512i weights = _mm512_loadu_si512(w);
            for (int p = 0; p < PIXELS; ++p) {
                const void* quad = a + static_cast<int64_t>(p) * row->inputs + i;
                const __m512i four = _mm512_set1_epi32(load32(quad));
                sums[p] = _mm512_dpbusd_epi32(sums[p], four, weights);
            }
        }
    }
    for (int p = 0; p < PIXELS; ++p) {
        _mm512_storeu_si512(row->sums + static_cast<int64_t>(pixel + p) * row->outputs + first_output, sums[p]);
    }
}

}  // namespace

void accumulate_row_avx512vnni(const AccumulateRow* row) {
    for (int o = 0; o < row->outputs; o += kOutputBlock) {
        int p = 0;
        for (; p + 8 <= row->pixels; p += 8) block<8>(row, p, o);
        for (; p < row->pixels; ++p) block<1>(row, p, o);
    }
}

}  // namespace sodec
