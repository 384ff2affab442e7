// bfloat16 in vectors of 16 floats. Included only by files that are compiled with AVX-512.
#pragma once

#include <immintrin.h>

namespace sodec {

inline __m512 widened(__m256i values) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}

// y / (1 + exp(-y)). exp by 2^n times a polynomial of degree 4 on -1/2..1/2 (relative error 4e-5), the quotient by a
// reciprocal of 14 bits: bfloat16 has 8.
inline __m512 silu(__m512 y) {
    const __m512 x = _mm512_mul_ps(y, _mm512_set1_ps(-1.44269504f));
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(0.00961812911f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.0555041087f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.240226507f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.693147181f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    const __m512 exponential = _mm512_scalef_ps(p, n);
    return _mm512_mul_ps(y, _mm512_rcp14_ps(_mm512_add_ps(exponential, _mm512_set1_ps(1.0f))));
}

}  // namespace sodec
