// The two steps of the scale network that have a version per instruction set: exact int32 sums of products, and their
// requantisation.
//
// Plain data only, for the reason that rans/kernels.h gives.
#pragma once

#include <stdint.h>

namespace sodec {

// One row of output pixels: sums[p * outputs + o] = bias[o] + sum over taps t, inputs i of w[t][i][o] * a[t][p][i].
struct AccumulateRow {
    const void* rows[3];  // padded activations, at the first pixel of each row of taps
    int taps;             // k, 1 or 3: k rows of k taps
    int inputs;           // per pixel, a multiple of 4
    int outputs;          // a multiple of kOutputBlock
    int pixels;
    const void* weights;  // [k * k][inputs / group][outputs][group]
    const int32_t* bias;  // [outputs]
    int32_t* sums;        // [pixels][outputs]
};

// In place: sums[k] = clamp((int64(sums[k]) * multiplier[k % outputs] + 2^(shift - 1)) >> shift, low, high).
struct RequantiseRow {
    int32_t* sums;  // [pixels][outputs]
    int outputs;    // a multiple of kOutputBlock
    int pixels;
    const int32_t* multiplier;  // [outputs]
    int shift;                  // 1..46
    int32_t low, high;
};

constexpr int kOutputBlock = 16;

// Inputs per group, and the types of activations and weights, of each version:
void accumulate_row_portable(const AccumulateRow* row);    // 1, uint16 and int16
void accumulate_row_avx2(const AccumulateRow* row);        // 2, uint16 and int16
void accumulate_row_avx512vnni(const AccumulateRow* row);  // 4, uint8 and int8

void requantise_row_portable(const RequantiseRow* row);
void requantise_row_avx2(const RequantiseRow* row);
void requantise_row_avx512vnni(const RequantiseRow* row);

}  // namespace sodec
