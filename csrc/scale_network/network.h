// The integer network that turns z into the scale index of every y, identical on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../cpu.h"

namespace sodec {

// One convolution with stride 1 and zero padding, then requantisation:
//   r = (int64(sum) * multiplier[o] + 2^(shift - 1)) >> shift
struct ScaleLayer {
    int outputs;
    int inputs;
    int kernel;                       // 1 or 3
    std::vector<int8_t> weights;      // [outputs][kernel][kernel][inputs]
    std::vector<int32_t> bias;        // [outputs]
    std::vector<int32_t> multiplier;  // [outputs]
    int shift;                        // 1..46
    int upsample;                     // 1, or 2: pixel shuffle, output c * 4 + dy * 2 + dx goes to channel c
};

class ScaleNetwork {
public:
    // Throws InvalidWeights, naming the layer, if its inputs are not the outputs before it or a sum may leave 32 bits.
    ScaleNetwork(const std::vector<ScaleLayer>& layers, Isa isa);

    int inputs() const { return layers_.front().inputs; }
    int outputs() const { return layers_.back().outputs; }
    int upsample() const;  // of each side, over all layers
    Isa isa() const { return isa_; }

    // z [height][width][inputs()] and offset [outputs()] to indexes [u height][u width][outputs()], u = upsample().
    void indexes(const int16_t* z, size_t height, size_t width, const int32_t* offset, uint8_t* out) const;

    // The same in the order of the coder: z [inputs()][height][width] to the first `rows` and `columns` of indexes,
    // [outputs()][rows][columns], with `none` in place of 0. rows <= u height, columns <= u width.
    void planes(const int16_t* z, size_t height, size_t width, const int32_t* offset, uint8_t none, uint8_t* out,
                size_t rows, size_t columns) const;

private:
    // Outputs before a pixel shuffle are in the order of its four pixels, so that each takes a run of them.
    struct Packed {
        int inputs, outputs, kernel, shift, upsample;
        int padded_inputs, padded_outputs;
        std::vector<int16_t> weights16;  // one of the two, depending on the instruction set
        std::vector<int8_t> weights8;
        std::vector<int32_t> bias, multiplier;  // padded
    };

    // Strides of z are in elements: of y, x and channel. `row_done(y, indexes)` gets indexes [u width][outputs()].
    template <class RowDone>
    void run(const int16_t* z, const size_t (&strides)[3], size_t height, size_t width, const int32_t* offset,
             RowDone row_done) const;
    template <class Activation, class RowDone>
    void run_with(const int16_t* z, const size_t (&strides)[3], size_t height, size_t width, const int32_t* offset,
                  RowDone row_done) const;

    std::vector<Packed> layers_;
    Isa isa_;
};

}  // namespace sodec
