// Layer norm over the channels of each position, then SiLU, in one pass over bfloat16.
//
// Plain data only, for the reason that rans/kernels.h gives.
#pragma once

#include <stdint.h>

namespace sodec {

struct ChannelNorm {
    const uint16_t* x;  // bfloat16 [positions][channels]
    uint16_t* out;
    int64_t positions;
    int channels;         // 1..kMaxNormChannels
    const float* weight;  // [channels]
    const float* bias;
    float eps;
};

constexpr int kMaxNormChannels = 256;

// For positions first..last - 1: silu((x - mean) / sqrt(variance + eps) * weight + bias), rounded to nearest even.
void channel_norm_silu_avx512(const ChannelNorm* norm, int64_t first, int64_t last);

}  // namespace sodec
