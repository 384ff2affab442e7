#include "network.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>

#include "../errors.h"
#include "accumulate.h"

namespace sodec {
namespace {

constexpr int kZeroPoint = 128;  // of z
constexpr int kMaxIndex = 63;
constexpr int kIndexFraction = 4;  // bits
constexpr int kMaxOffset = 1 << 20;
constexpr int kMaxResult = 1 << 22;  // more than kMaxOffset and all indexes together
constexpr int kMaxShift = 46;
constexpr int kMaxChannels = 4096;

[[noreturn]] void refuse(size_t layer, const std::string& fault) {
    throw InvalidWeights("scale network, layer " + std::to_string(layer) + ": " + fault);
}

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

void check(const ScaleLayer& layer, size_t number, size_t count, int inputs) {
    if (layer.outputs < 1 || layer.inputs < 1 || layer.outputs > kMaxChannels || layer.inputs > kMaxChannels) {
        refuse(number, "has " + std::to_string(layer.inputs) + " inputs and " + std::to_string(layer.outputs) +
                           " outputs, not 1 to 4096");
    }
    if (inputs != 0 && layer.inputs != inputs) {
        refuse(number, "takes " + std::to_string(layer.inputs) + " channels but is given " + std::to_string(inputs));
    }
    if (layer.kernel != 1 && (layer.kernel != 3 || number == 0)) {
        refuse(number, "kernel is " + std::to_string(layer.kernel) + ", not 1" + (number == 0 ? "" : " or 3"));
    }
    if (layer.shift < 1 || layer.shift > kMaxShift) {
        refuse(number, "shift is " + std::to_string(layer.shift) + ", not 1 to 46");
    }
    const bool last = number + 1 == count;
    if (layer.upsample != 1 && (layer.upsample != 2 || last || layer.outputs % 4 != 0)) {
        refuse(number, "can't upsample " + std::to_string(layer.outputs) + " channels by " +
                           std::to_string(layer.upsample) + (last ? " in the last layer" : ""));
    }
    const size_t outputs = static_cast<size_t>(layer.outputs);
    const size_t per_output = static_cast<size_t>(layer.inputs * layer.kernel * layer.kernel);
    if (layer.weights.size() != outputs * per_output || layer.bias.size() != outputs ||
        layer.multiplier.size() != outputs) {
        refuse(number, "weights, bias and multiplier do not agree in size");
    }
    for (size_t o = 0; o < outputs; ++o) {
        int64_t reach = std::abs(static_cast<int64_t>(layer.bias[o]));
        for (size_t i = 0; i < per_output; ++i) reach += 255 * std::abs(int64_t{layer.weights[o * per_output + i]});
        if (reach >= int64_t{1} << 31) {
            refuse(number, "output " + std::to_string(o) + " can reach " + std::to_string(reach) + ", beyond 32 bits");
        }
    }
}

// The output that is stored at `place`.
int output_at(const ScaleLayer& layer, int place) {
    const int per_pixel = layer.outputs / 4;
    return layer.upsample == 2 ? place % per_pixel * 4 + place / per_pixel : place;
}

template <class Out>
std::vector<Out> pack(const ScaleLayer& layer, int padded_inputs, int padded_outputs, int group) {
    const int taps = layer.kernel * layer.kernel;
    std::vector<Out> packed(static_cast<size_t>(taps) * static_cast<size_t>(padded_inputs * padded_outputs), 0);
    for (int place = 0; place < layer.outputs; ++place) {
        const int o = output_at(layer, place);
        for (int t = 0; t < taps; ++t) {
            for (int i = 0; i < layer.inputs; ++i) {
                const int64_t groups = static_cast<int64_t>(t) * (padded_inputs / group) + i / group;
                const int64_t to = (groups * padded_outputs + place) * group + i % group;
                packed[static_cast<size_t>(to)] =
                    layer.weights[(static_cast<size_t>(o) * static_cast<size_t>(taps) + static_cast<size_t>(t)) *
                                      static_cast<size_t>(layer.inputs) +
                                  static_cast<size_t>(i)];
            }
        }
    }
    return packed;
}

// Activations with one pixel of zeros around them, so that a 3x3 kernel needs no case at the border.
template <class Activation>
struct Image {
    size_t height, width, channels;
    std::vector<Activation> data;

    Image(size_t h, size_t w, size_t c) : height(h), width(w), channels(c), data((h + 2) * (w + 2) * c, 0) {}
    Activation* at(size_t y, size_t x) { return data.data() + ((y + 1) * (width + 2) + x + 1) * channels; }
};

}  // namespace

ScaleNetwork::ScaleNetwork(const std::vector<ScaleLayer>& layers, Isa isa) : isa_(isa) {
    if (layers.empty()) throw InvalidWeights("scale network has no layers");
    int inputs = 0;
    for (size_t number = 0; number < layers.size(); ++number) {
        const ScaleLayer& layer = layers[number];
        check(layer, number, layers.size(), inputs);
        inputs = layer.outputs / (layer.upsample * layer.upsample);
        Packed packed{layer.inputs,
                      layer.outputs,
                      layer.kernel,
                      layer.shift,
                      layer.upsample,
                      round_up(layer.inputs, 4),
                      round_up(layer.outputs, kOutputBlock),
                      {},
                      {},
                      std::vector<int32_t>(static_cast<size_t>(round_up(layer.outputs, kOutputBlock)), 0),
                      std::vector<int32_t>(static_cast<size_t>(round_up(layer.outputs, kOutputBlock)), 0)};
        for (int place = 0; place < layer.outputs; ++place) {
            const auto o = static_cast<size_t>(output_at(layer, place)), at = static_cast<size_t>(place);
            packed.bias[at] = layer.bias[o];
            packed.multiplier[at] = layer.multiplier[o];
        }
        if (isa == Isa::avx512vnni) {
            packed.weights8 = pack<int8_t>(layer, packed.padded_inputs, packed.padded_outputs, 4);
        } else {
            const int group = isa == Isa::avx2 ? 2 : 1;
            packed.weights16 = pack<int16_t>(layer, packed.padded_inputs, packed.padded_outputs, group);
        }
        layers_.push_back(std::move(packed));
    }
}

int ScaleNetwork::upsample() const {
    int all = 1;
    for (const Packed& layer : layers_) all *= layer.upsample;
    return all;
}

void ScaleNetwork::indexes(const int16_t* z, size_t height, size_t width, const int32_t* offset, uint8_t* out) const {
    const size_t channels = static_cast<size_t>(inputs());
    const size_t row = width * static_cast<size_t>(upsample()) * static_cast<size_t>(outputs());
    run(z, {width * channels, channels, 1}, height, width, offset,
        [out, row](size_t y, const uint8_t* indexes) { std::copy(indexes, indexes + row, out + y * row); });
}

void ScaleNetwork::planes(const int16_t* z, size_t height, size_t width, const int32_t* offset, uint8_t none,
                          uint8_t* out, size_t rows, size_t columns) const {
    const size_t channels = static_cast<size_t>(outputs());
    constexpr size_t kBlock = 16;  // pixels and channels that are transposed at once
    run(z, {width, 1, height * width}, height, width, offset, [=](size_t y, const uint8_t* indexes) {
        if (y >= rows) return;
        for (size_t first = 0; first < channels; first += kBlock) {
            const size_t count = std::min(kBlock, channels - first);
            for (size_t x = 0; x < columns; x += kBlock) {
                const size_t pixels = std::min(kBlock, columns - x);
                uint8_t block[kBlock][kBlock];
                for (size_t p = 0; p < pixels; ++p) {
                    const uint8_t* from = indexes + (x + p) * channels + first;
                    for (size_t c = 0; c < count; ++c) block[c][p] = from[c] == 0 ? none : from[c];
                }
                for (size_t c = 0; c < count; ++c) {
                    std::copy(block[c], block[c] + pixels, out + ((first + c) * rows + y) * columns + x);
                }
            }
        }
    });
}

template <class RowDone>
void ScaleNetwork::run(const int16_t* z, const size_t (&strides)[3], size_t height, size_t width, const int32_t* offset,
                       RowDone row_done) const {
    for (int c = 0; c < outputs(); ++c) {
        if (offset[c] < -kMaxOffset || offset[c] > kMaxOffset) {
            throw std::invalid_argument("index offset " + std::to_string(offset[c]) + " of channel " +
                                        std::to_string(c) + " is beyond 2^20");
        }
    }
    if (height == 0 || width == 0) return;
    if (isa_ == Isa::avx512vnni) {
        run_with<uint8_t>(z, strides, height, width, offset, row_done);
    } else {
        run_with<uint16_t>(z, strides, height, width, offset, row_done);
    }
}

template <class Activation, class RowDone>
void ScaleNetwork::run_with(const int16_t* z, const size_t (&strides)[3], size_t height, size_t width,
                            const int32_t* offset, RowDone row_done) const {
    void (*accumulate)(const AccumulateRow*) = accumulate_row_portable;
    void (*requantise)(const RequantiseRow*) = requantise_row_portable;
#ifdef SODEC_X86
    if (isa_ == Isa::avx2) {
        accumulate = accumulate_row_avx2;
        requantise = requantise_row_avx2;
    }
    if (isa_ == Isa::avx512vnni) {
        accumulate = accumulate_row_avx512vnni;
        requantise = requantise_row_avx512vnni;
    }
#endif
    Image<Activation> image(height, width, static_cast<size_t>(layers_[0].padded_inputs));
    const size_t channels = static_cast<size_t>(inputs());
    for (size_t y = 0; y < height; ++y) {
        for (size_t x = 0; x < width; ++x) {
            Activation* to = image.at(y, x);
            const int16_t* from = z + y * strides[0] + x * strides[1];
            for (size_t c = 0; c < channels; ++c) {
                to[c] = static_cast<Activation>(std::clamp(from[c * strides[2]] + kZeroPoint, 0, 255));
            }
        }
    }
    for (size_t number = 0; number < layers_.size(); ++number) {
        const Packed& layer = layers_[number];
        const bool last = number + 1 == layers_.size();
        const size_t up = static_cast<size_t>(layer.upsample);
        const size_t outputs = static_cast<size_t>(layer.outputs);
        const size_t stride = static_cast<size_t>(layer.padded_outputs);
        Image<Activation> next(last ? 0 : image.height * up, last ? 0 : image.width * up,
                               last ? 0 : static_cast<size_t>(layers_[number + 1].padded_inputs));
        std::vector<int32_t> sums(image.width * stride);
        std::vector<uint8_t> indexes(last ? image.width * outputs : 0);
        AccumulateRow row{};
        row.taps = layer.kernel;
        row.inputs = layer.padded_inputs;
        row.outputs = layer.padded_outputs;
        row.pixels = static_cast<int>(image.width);
        row.weights = layer.weights8.empty() ? static_cast<const void*>(layer.weights16.data()) : layer.weights8.data();
        row.bias = layer.bias.data();
        row.sums = sums.data();
        // Beyond +-kMaxResult an index is 0 or 63, whatever its offset.
        const RequantiseRow results{sums.data(),
                                    layer.padded_outputs,
                                    row.pixels,
                                    layer.multiplier.data(),
                                    layer.shift,
                                    last ? -kMaxResult : 0,
                                    last ? kMaxResult : 255};
        for (size_t y = 0; y < image.height; ++y) {
            for (int ky = 0; ky < layer.kernel; ++ky) {
                const size_t border = static_cast<size_t>(layer.kernel / 2);
                // The padding starts one pixel up and left of at(0, 0): 3x3 begins there, 1x1 at the pixel itself.
                row.rows[ky] = image.at(y, 0) +
                               (static_cast<ptrdiff_t>(ky) - static_cast<ptrdiff_t>(border)) *
                                   static_cast<ptrdiff_t>((image.width + 2) * image.channels) -
                               border * image.channels;
            }
            accumulate(&row);
            requantise(&results);
            for (size_t x = 0; x < image.width; ++x) {
                const int32_t* sum = sums.data() + x * stride;
                if (last) {
                    uint8_t* to = indexes.data() + x * outputs;
                    for (size_t o = 0; o < outputs; ++o) {
                        const int32_t index = (sum[o] + offset[o] + (1 << (kIndexFraction - 1))) >> kIndexFraction;
                        to[o] = static_cast<uint8_t>(std::clamp(index, 0, kMaxIndex));
                    }
                    continue;
                }
                const size_t per_pixel = outputs / (up * up);
                for (size_t pixel = 0; pixel < up * up; ++pixel) {
                    Activation* to = next.at(up * y + pixel / up, up * x + pixel % up);
                    const int32_t* from = sum + pixel * per_pixel;
                    for (size_t o = 0; o < per_pixel; ++o) to[o] = static_cast<Activation>(from[o]);
                }
            }
            if (last) row_done(y, indexes.data());
        }
        image = std::move(next);
    }
}

}  // namespace sodec
