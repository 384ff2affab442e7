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

private:
    struct Packed {
        int inputs, outputs, kernel, shift, upsample;
        int padded_inputs, padded_outputs;
        std::vector<int16_t> weights16;  // one of the two, depending on the instruction set
        std::vector<int8_t> weights8;
        std::vector<int32_t> bias, multiplier;
    };

    template <class Activation>
    void run(const int16_t* z, size_t height, size_t width, const int32_t* offset, uint8_t* out) const;

    std::vector<Packed> layers_;
    Isa isa_;
};

}  // namespace sodec
