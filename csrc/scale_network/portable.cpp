#include "accumulate.h"

namespace sodec {

void accumulate_row_portable(const AccumulateRow* row) {
    const int16_t* weights = static_cast<const int16_t*>(row->weights);
    for (int p = 0; p < row->pixels; ++p) {
        int32_t* const sums = row->sums + static_cast<int64_t>(p) * row->outputs;
        for (int block = 0; block < row->outputs; block += kOutputBlock) {
            int32_t sum[kOutputBlock];
            for (int o = 0; o < kOutputBlock; ++o) sum[o] = row->bias[block + o];
            const int16_t* w = weights + block;
            for (int ky = 0; ky < row->taps; ++ky) {
                // The k taps of a row are neighbours in memory, so they read as one run of k * inputs activations.
                const uint16_t* a = static_cast<const uint16_t*>(row->rows[ky]) + static_cast<int64_t>(p) * row->inputs;
                for (int i = 0; i < row->taps * row->inputs; ++i, w += row->outputs) {
                    // Compilers vectorise products of two int16 on every machine.
                    const int16_t activation = static_cast<int16_t>(a[i]);
                    for (int o = 0; o < kOutputBlock; ++o) sum[o] += activation * w[o];
                }
            }
            for (int o = 0; o < kOutputBlock; ++o) sums[block + o] = sum[o];
        }
    }
}

void requantise_row_portable(const RequantiseRow* row) {
    const int64_t half = int64_t{1} << (row->shift - 1);
    for (int p = 0; p < row->pixels; ++p) {
        int32_t* const sums = row->sums + static_cast<int64_t>(p) * row->outputs;
        for (int o = 0; o < row->outputs; ++o) {
            const int64_t r = (static_cast<int64_t>(sums[o]) * row->multiplier[o] + half) >> row->shift;
            sums[o] = r < row->low ? row->low : r > row->high ? row->high : static_cast<int32_t>(r);
        }
    }
}

}  // namespace sodec
