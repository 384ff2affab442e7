// Any bytes, read as a scale network and as z, by every instruction set: they must agree in each index and each
// refusal. What differs aborts; what reads or writes elsewhere is the sanitizers' to find.
//
// Input: a byte for the number of layers (modulo 3), two for height and width of z (modulo 4), then five for each layer
// (outputs, inputs, kernel and upsample, shift, kind of weights); the rest, again and again, is weights, biases,
// multipliers, offsets and z. Sizes chain, so that most networks are valid, unless bit 7 of the first byte is set.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <string>
#include <utility>
#include <vector>

#include "cpu.h"
#include "errors.h"
#include "scale_network/network.h"

namespace {

using namespace sodec;

// Bytes from the input, and from its beginning again after its end.
class Source {
public:
    Source(const uint8_t* data, size_t size) : data_(data), size_(size) {}

    uint8_t byte() { return data_[position_++ % size_]; }

    int32_t number(int bits) {
        uint32_t value = 0;
        for (int i = 0; i < 4; ++i) value = value << 8 | byte();
        return static_cast<int32_t>(value) >> (32 - bits);
    }

private:
    const uint8_t* data_;
    size_t size_, position_ = 0;
};

ScaleLayer layer_of(Source& source, int inputs, bool first, bool last) {
    const int outputs = source.byte() % 36 + 1, stray_inputs = source.byte() % 24 + 1;
    const uint8_t shape = source.byte(), shift = source.byte(), kind = source.byte();
    const int upsample = !last && (shape & 2) ? 2 : 1;
    ScaleLayer layer{upsample == 2 ? (outputs + 3) / 4 * 4 : outputs,
                     inputs != 0 ? inputs : stray_inputs,
                     !first && (shape & 1) ? 3 : 1,
                     {},
                     {},
                     {},
                     kind & 8 ? shift % 50 : 8 + shift % 24,
                     upsample};
    const int count = layer.outputs * layer.inputs * layer.kernel * layer.kernel;
    for (int i = 0; i < count; ++i) {
        const uint8_t value = source.byte();
        layer.weights.push_back(static_cast<int8_t>(kind & 1 ? (value & 1 ? 127 : -128) : value));
    }
    for (int o = 0; o < layer.outputs; ++o) {
        layer.bias.push_back(source.number(kind & 2 ? 31 : 16));
        layer.multiplier.push_back(source.number(kind & 4 ? 32 : 20));
    }
    return layer;
}

std::string answer(const std::vector<ScaleLayer>& layers, Source source, size_t height, size_t width, Isa isa) {
    try {
        const ScaleNetwork network(layers, isa);
        std::vector<int32_t> offset;
        for (int o = 0; o < network.outputs(); ++o) offset.push_back(source.number(21));
        const bool wide = source.byte() & 1;
        std::vector<int16_t> z;
        for (size_t i = 0; i < height * width * static_cast<size_t>(network.inputs()); ++i) {
            z.push_back(static_cast<int16_t>(wide ? source.number(16) : source.number(9)));
        }
        const size_t up = static_cast<size_t>(network.upsample());
        std::vector<uint8_t> out(height * up * width * up * static_cast<size_t>(network.outputs()));
        network.indexes(z.data(), height, width, offset.data(), out.data());
        for (uint8_t index : out) {
            if (index > 63) abort();
        }
        return {out.begin(), out.end()};
    } catch (const InvalidWeights& error) {
        return error.what();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 3) return 0;
    Source source(data, size);
    const uint8_t choices = source.byte();
    const size_t height = source.byte() % 4, width = source.byte() % 4;
    const int count = choices % 3 + 1;
    std::vector<ScaleLayer> layers;
    int inputs = 0;
    for (int number = 0; number < count; ++number) {
        layers.push_back(layer_of(source, choices & 128 ? 0 : inputs, number == 0, number + 1 == count));
        inputs = layers.back().outputs / (layers.back().upsample * layers.back().upsample);
    }
    const std::string right = answer(layers, source, height, width, Isa::portable);
    for (Isa isa : processor().supported) {
        if (answer(layers, source, height, width, isa) == right) continue;
        fprintf(stderr, "%s differs from portable\n", isa_name(isa));
        abort();
    }
    return 0;
}
