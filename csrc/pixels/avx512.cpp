// Compiled with AVX-512.
#include "../vector512.h"
#include "pixels.h"

namespace sodec {
namespace {

inline __m512 read(const float* from) { return _mm512_loadu_ps(from); }

inline __m512 read(const uint16_t* from) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }

// 16 values as bytes: what `to_byte(clipped(value + offset))` of pixels.cpp gives.
template <class Float>
inline __m128i bytes(const Float* from, __m512 offset) {
    const __m512 value = _mm512_max_ps(_mm512_add_ps(read(from), offset), _mm512_setzero_ps());  // NaN becomes 0
    const __m512 clipped = _mm512_min_ps(value, _mm512_set1_ps(1.0f));
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(clipped, _mm512_set1_ps(255.0f))));
}

// Where the four bytes from `first` on go among 12, of which a colour has every third, from `colour` on.
inline __m128i places(int first, int colour) {
    alignas(16) char to[16];
    for (int k = 0; k < 16; ++k) {
        to[k] = static_cast<char>(k < 12 && k % 3 == colour ? first + k / 3 : -1);
    }
    return _mm_load_si128(reinterpret_cast<const __m128i*>(to));
}

template <class Float>
void write(const Float* from, float offset, size_t positions, uint8_t* to, size_t apart) {
    __m128i order[4][3];
    for (int i = 0; i < 4; ++i) {
        for (int c = 0; c < 3; ++c) order[i][c] = places(4 * i, c);
    }
    const __m512 added = _mm512_set1_ps(offset);
    for (size_t x = 0; x < positions; ++x, from += 48, to += 12) {
        const __m128i red = bytes(from, added), green = bytes(from + 16, added), blue = bytes(from + 32, added);
        for (int i = 0; i < 4; ++i) {
            const __m128i row =
                _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(red, order[i][0]), _mm_shuffle_epi8(green, order[i][1])),
                             _mm_shuffle_epi8(blue, order[i][2]));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + static_cast<size_t>(i) * apart), row);
        }
    }
}

}  // namespace

void write_folded_avx512(const void* from, FloatKind kind, float offset, size_t positions, uint8_t* to, size_t apart) {
    if (kind == FloatKind::float32) {
        write(static_cast<const float*>(from), offset, positions, to, apart);
    } else {
        write(static_cast<const uint16_t*>(from), offset, positions, to, apart);
    }
}

}  // namespace sodec
