// Compiled with AVX-512.
#include "../vector512.h"
#include "norm.h"

namespace sodec {
namespace {

// To nearest, halves to even; NaN may become infinite.
inline __m256i narrowed(__m512 values) {
    const __m512i bits = _mm512_castps_si512(values);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

// N vectors of 16 channels, of the last of which `tail` says which exist.
template <int N>
void run(const ChannelNorm* norm, int64_t first, int64_t last) {
    const int channels = norm->channels;
    const __mmask16 tail = static_cast<__mmask16>(0xFFFFu >> (16 * N - channels));
    const float share = 1.0f / static_cast<float>(channels);
    for (int64_t position = first; position < last; ++position) {
        const uint16_t* x = norm->x + position * channels;
        uint16_t* out = norm->out + position * channels;
        __m512 values[N];
        __m512 sum = _mm512_setzero_ps();
        for (int n = 0; n < N; ++n) {
            const __mmask16 there = n + 1 < N ? static_cast<__mmask16>(0xFFFF) : tail;
            values[n] = widened(_mm256_maskz_loadu_epi16(there, x + 16 * n));
            sum = _mm512_add_ps(sum, values[n]);
        }
        const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) * share);
        __m512 squares = _mm512_setzero_ps();
        for (int n = 0; n < N; ++n) {
            const __mmask16 there = n + 1 < N ? static_cast<__mmask16>(0xFFFF) : tail;
            values[n] = _mm512_maskz_sub_ps(there, values[n], mean);
            squares = _mm512_fmadd_ps(values[n], values[n], squares);
        }
        const float variance = _mm512_reduce_add_ps(squares) * share;
        const __m512 scale = _mm512_set1_ps(1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(variance + norm->eps))));
        for (int n = 0; n < N; ++n) {
            const __mmask16 there = n + 1 < N ? static_cast<__mmask16>(0xFFFF) : tail;
            const __m512 weight = _mm512_mul_ps(scale, _mm512_maskz_loadu_ps(there, norm->weight + 16 * n));
            const __m512 y = _mm512_fmadd_ps(values[n], weight, _mm512_maskz_loadu_ps(there, norm->bias + 16 * n));
            _mm256_mask_storeu_epi16(out + 16 * n, there, narrowed(silu(y)));
        }
    }
}

using Run = void (*)(const ChannelNorm*, int64_t, int64_t);
constexpr Run kRuns[] = {run<1>, run<2>,  run<3>,  run<4>,  run<5>,  run<6>,  run<7>,  run<8>,
                         run<9>, run<10>, run<11>, run<12>, run<13>, run<14>, run<15>, run<16>};

}  // namespace

void channel_norm_silu_avx512(const ChannelNorm* norm, int64_t first, int64_t last) {
    kRuns[(norm->channels - 1) / 16](norm, first, last);
}

}  // namespace sodec
