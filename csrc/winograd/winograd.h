// 3x3 convolutions of bfloat16, stride 1, padded by zeros, with what follows them, by Winograd's F(2x2, 3x3) (Lavin and
// Gray, CVPR 2016), which multiplies 16 times for 2x2 outputs where the definition does so 36 times.
//
// The transformed input is rounded to bfloat16; sums are float32. Plain data only, for the reason that rans/kernels.h
// gives.
#pragma once

#include <stdint.h>

namespace sodec {

struct Winograd {
    const uint16_t* x;         // bfloat16 [batch][height][width][inputs]
    const uint16_t* weights;   // bfloat16 [outputs / (16 group)][16][inputs / 2][16 group][2]: G g G^T
    const float* bias;         // [outputs]
    const uint16_t* residual;  // as out, or null; may be out
    uint16_t* out;             // [batch][height][width][outputs]: bfloat16, rounded to nearest even
    int64_t batch, height, width;
    int64_t inputs;   // a multiple of 2
    int64_t outputs;  // at most as many as the weights have
    int group;        // vectors of 16 outputs that are computed together: 2..5
    bool silu;        // of the sum with the residual
};

constexpr int kWinogradTiles = 30;  // worked on at once, so that their products stay in the second-level cache

// A tile is 2x2 outputs; the last one of a row or a column may reach beyond the picture.
inline int64_t winograd_tiles(const Winograd& w) { return w.batch * ((w.height + 1) / 2) * ((w.width + 1) / 2); }

// Bytes of memory, aligned to 64, that one call works in.
int64_t winograd_scratch(const Winograd& convolution);

// The outputs of tiles first..last - 1, counted along rows. Calls are best of a multiple of kWinogradTiles.
void winograd_avx512bf16(const Winograd& convolution, int64_t first, int64_t last, char* scratch);

}  // namespace sodec
