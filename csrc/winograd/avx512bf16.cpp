// Compiled with AVX-512 and AVX512-BF16.
#include <string.h>

#include "../vector512.h"
#include "winograd.h"

namespace sodec {
namespace {

constexpr int kTiles = kWinogradTiles;
constexpr int64_t kLine = 64;    // bytes of a cache line
constexpr int64_t kVector = 16;  // floats

int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Elements between two of a block's 16 matrices: a line more than they have, or they would share sets of the cache.
int64_t inputs_apart(const Winograd& w) { return rounded_up(kTiles * w.inputs, kLine / 2) + kLine / 2; }
int64_t products_apart(const Winograd& w) { return kTiles * rounded_up(w.outputs, kVector) + kLine / 4; }

__mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>(count >= kVector ? 0xFFFF : (1 << count) - 1); }

// The same bits. Compilers differ in which casts between vectors they have.
template <class To, class From>
To as(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}

__m256i load(const uint16_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

// With `Whole`, all 16 lanes; a mask takes longer.
template <bool Whole>
void store(uint16_t* to, __mmask16 lanes, __m512 values) {
    const __m256i rounded = as<__m256i>(_mm512_cvtneps_pbh(values));
    if (Whole) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), rounded);
    } else {
        _mm256_mask_storeu_epi16(to, lanes, rounded);
    }
}

// Where a block of tiles is worked on.
struct Block {
    const Winograd& convolution;
    uint16_t* inputs;         // bfloat16 [16][kTiles][inputs]: B^T d B of each tile d
    float* products;          // [16][kTiles][outputs]
    const uint16_t* outside;  // zeros, in place of a position beyond the picture
    int64_t inputs_apart;
    int64_t products_apart;
};

struct Place {
    int64_t picture, y, x;  // of the tile's first output
};

Place place_of(const Winograd& w, int64_t tile) {
    const int64_t rows = (w.height + 1) / 2, columns = (w.width + 1) / 2;
    return {tile / (rows * columns), 2 * (tile / columns % rows), 2 * (tile % columns)};
}

// B^T d, with B^T = (1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1), of four values.
inline void transform(__m512& a, __m512& b, __m512& c, __m512& d) {
    const __m512 first = _mm512_sub_ps(a, c), second = _mm512_add_ps(b, c), third = _mm512_sub_ps(c, b);
    d = _mm512_sub_ps(b, d);
    a = first, b = second, c = third;
}

// Channels c.. of a tile: 4x4 positions `from`, transformed, to the 16 matrices.
template <bool Whole>
inline void transform_tile(const uint16_t* const from[4][4], int64_t c, __mmask16 lanes, uint16_t* to, int64_t apart) {
    __m512 d[4][4];
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) {
            d[i][j] = widened(Whole ? load(from[i][j] + c) : _mm256_maskz_loadu_epi16(lanes, from[i][j] + c));
        }
    }
    for (int j = 0; j < 4; ++j) transform(d[0][j], d[1][j], d[2][j], d[3][j]);
    for (int i = 0; i < 4; ++i) transform(d[i][0], d[i][1], d[i][2], d[i][3]);
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) store<Whole>(to + (4 * i + j) * apart + c, lanes, d[i][j]);
    }
}

void read_tile(const Block& block, const Place& place, int row) {
    const Winograd& w = block.convolution;
    const uint16_t* from[4][4];
    for (int64_t i = 0; i < 4; ++i) {
        const int64_t y = place.y + i - 1;
        for (int64_t j = 0; j < 4; ++j) {
            const int64_t x = place.x + j - 1;
            const bool inside = y >= 0 && y < w.height && x >= 0 && x < w.width;
            from[i][j] = inside ? w.x + ((place.picture * w.height + y) * w.width + x) * w.inputs : block.outside;
        }
    }
    uint16_t* to = block.inputs + row * w.inputs;
    int64_t c = 0;
    for (; c + kVector <= w.inputs; c += kVector) transform_tile<true>(from, c, 0xFFFF, to, block.inputs_apart);
    if (c < w.inputs) transform_tile<false>(from, c, first_lanes(w.inputs - c), to, block.inputs_apart);
}

// Rows [Rows][inputs] times weights [inputs / 2][16 Group][2], to rows of products that are `stride` apart.
template <int Rows, int Group>
void multiply(const uint16_t* rows, int64_t inputs, const uint16_t* weights, float* products, int64_t stride) {
    static_assert(kTiles % Rows == 0 && Rows * Group + Group + 1 <= 32,
                  "a block has whole groups; sums are in registers");
    __m512 sums[Rows][Group];
    for (int r = 0; r < Rows; ++r) {
        for (int g = 0; g < Group; ++g) sums[r][g] = _mm512_setzero_ps();
    }
    for (int64_t c = 0; c < inputs; c += 2, weights += 2 * kVector * Group) {
        __m512bh columns[Group];
        for (int g = 0; g < Group; ++g) columns[g] = as<__m512bh>(_mm512_loadu_si512(weights + 2 * kVector * g));
        for (int r = 0; r < Rows; ++r) {
            int32_t pair;
            memcpy(&pair, rows + r * inputs + c, sizeof(pair));
            const __m512bh both = as<__m512bh>(_mm512_set1_epi32(pair));
            for (int g = 0; g < Group; ++g) sums[r][g] = _mm512_dpbf16_ps(sums[r][g], columns[g], both);
        }
    }
    for (int r = 0; r < Rows; ++r) {
        for (int g = 0; g < Group; ++g) _mm512_storeu_ps(products + r * stride + kVector * g, sums[r][g]);
    }
}

// A^T m A, with A^T = (1 1 1 0; 0 1 -1 -1), of the 16 products m of a tile: its 2x2 outputs.
inline void transform_products(const float* from, int64_t apart, __m512 y[2][2]) {
    __m512 sums[2][4];
    for (int j = 0; j < 4; ++j) {
        const __m512 a = _mm512_loadu_ps(from + j * apart), b = _mm512_loadu_ps(from + (4 + j) * apart);
        const __m512 c = _mm512_loadu_ps(from + (8 + j) * apart), d = _mm512_loadu_ps(from + (12 + j) * apart);
        sums[0][j] = _mm512_add_ps(_mm512_add_ps(a, b), c);
        sums[1][j] = _mm512_sub_ps(_mm512_sub_ps(b, c), d);
    }
    for (int i = 0; i < 2; ++i) {
        y[i][0] = _mm512_add_ps(_mm512_add_ps(sums[i][0], sums[i][1]), sums[i][2]);
        y[i][1] = _mm512_sub_ps(_mm512_sub_ps(sums[i][1], sums[i][2]), sums[i][3]);
    }
}

// 16 outputs at each of a tile's 2x2 positions: `at` of the first one, `right` and `below` from there to the others.
template <bool Whole, bool Residual, bool Silu>
inline void finish(const Winograd& w, __m512 y[2][2], __m512 bias, __mmask16 lanes, int64_t at, int64_t right,
                   int64_t below) {
    for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
            y[i][j] = _mm512_add_ps(y[i][j], bias);
            if (Residual) {
                const uint16_t* from = w.residual + at + i * below + j * right;
                const __m256i added = Whole ? load(from) : _mm256_maskz_loadu_epi16(lanes, from);
                y[i][j] = _mm512_add_ps(y[i][j], widened(added));
            }
            if (Silu) y[i][j] = silu(y[i][j]);
        }
    }
    // Backwards: a position beyond the picture has the place of one inside it, which is written after it.
    for (int i = 1; i >= 0; --i) {
        for (int j = 1; j >= 0; --j) store<Whole>(w.out + at + i * below + j * right, lanes, y[i][j]);
    }
}

template <bool Residual, bool Silu>
void write_tile(const Block& block, const Place& place, const float* products) {
    const Winograd& w = block.convolution;
    const int64_t right = place.x + 1 < w.width ? w.outputs : 0;
    const int64_t below = place.y + 1 < w.height ? w.width * w.outputs : 0;
    const int64_t at = ((place.picture * w.height + place.y) * w.width + place.x) * w.outputs;
    __m512 y[2][2];
    int64_t k = 0;
    for (; k + kVector <= w.outputs; k += kVector) {
        transform_products(products + k, block.products_apart, y);
        finish<true, Residual, Silu>(w, y, _mm512_loadu_ps(w.bias + k), 0xFFFF, at + k, right, below);
    }
    if (k < w.outputs) {
        const __mmask16 lanes = first_lanes(w.outputs - k);
        transform_products(products + k, block.products_apart, y);
        finish<false, Residual, Silu>(w, y, _mm512_maskz_loadu_ps(lanes, w.bias + k), lanes, at + k, right, below);
    }
}

using Write = void (*)(const Block&, const Place&, const float*);
constexpr Write kWrites[2][2] = {{write_tile<false, false>, write_tile<false, true>},
                                 {write_tile<true, false>, write_tile<true, true>}};

template <int Rows, int Group>
void run(const Block& block, int64_t first, int64_t last) {
    const Winograd& w = block.convolution;
    const Write write = kWrites[w.residual != nullptr][w.silu];
    const int64_t stride = rounded_up(w.outputs, kVector);
    Place places[kTiles];
    for (int64_t begin = first; begin < last; begin += kTiles) {
        const int count = static_cast<int>(last - begin < kTiles ? last - begin : kTiles);
        for (int row = 0; row < count; ++row) {
            places[row] = place_of(w, begin + row);
            read_tile(block, places[row], row);
        }
        // Rows beyond the last tile are multiplied too, to fill a group, and their products left alone.
        for (int row = count; row % Rows != 0; ++row) {
            for (int matrix = 0; matrix < 16; ++matrix) {
                uint16_t* unused = block.inputs + matrix * block.inputs_apart + row * w.inputs;
                memset(unused, 0, static_cast<size_t>(2 * w.inputs));
            }
        }
        const uint16_t* weights = w.weights;
        for (int64_t output = 0; output < w.outputs; output += kVector * Group) {
            for (int matrix = 0; matrix < 16; ++matrix, weights += w.inputs * kVector * Group) {
                const uint16_t* rows = block.inputs + matrix * block.inputs_apart;
                float* products = block.products + matrix * block.products_apart + output;
                for (int row = 0; row < count; row += Rows) {
                    multiply<Rows, Group>(rows + row * w.inputs, w.inputs, weights, products + row * stride, stride);
                }
            }
        }
        for (int row = 0; row < count; ++row) write(block, places[row], block.products + row * stride);
    }
}

int64_t bytes_of_inputs(const Winograd& w) { return 16 * inputs_apart(w) * 2; }
int64_t bytes_of_products(const Winograd& w) { return 16 * products_apart(w) * 4; }

}  // namespace

int64_t winograd_scratch(const Winograd& w) { return bytes_of_inputs(w) + bytes_of_products(w) + 2 * w.inputs; }

void winograd_avx512bf16(const Winograd& w, int64_t first, int64_t last, char* scratch) {
    char* products = scratch + bytes_of_inputs(w);
    char* outside = products + bytes_of_products(w);
    memset(outside, 0, static_cast<size_t>(2 * w.inputs));
    const Block block{w,
                      reinterpret_cast<uint16_t*>(scratch),
                      reinterpret_cast<float*>(products),
                      reinterpret_cast<const uint16_t*>(outside),
                      inputs_apart(w),
                      products_apart(w)};
    switch (w.group) {
        case 5: run<5, 5>(block, first, last); break;
        case 4: run<6, 4>(block, first, last); break;
        case 3: run<6, 3>(block, first, last); break;
        default: run<10, 2>(block, first, last); break;
    }
}

}  // namespace sodec
