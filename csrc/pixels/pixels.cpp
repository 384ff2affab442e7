#include "pixels.h"

#include <cstring>
#include <vector>

#include "../cpu.h"

namespace sodec {
namespace {

constexpr float kRed = 0.299f, kGreen = 0.587f, kBlue = 0.114f;  // Rec. 601, as in Pillow
constexpr float kRounder = 8388608.0f;                           // 2^23: a sum with it has no room for fractions

inline float read(const float* from) { return *from; }

inline float read(const uint16_t* from) {  // bfloat16 is the upper half of a float
    const uint32_t bits = static_cast<uint32_t>(*from) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float clipped(float value) {
    value = value > 0.0f ? value : 0.0f;  // and NaN
    return value < 1.0f ? value : 1.0f;
}

inline uint8_t to_byte(float value) {
    const float sum = value * 255.0f + kRounder;
    uint32_t bits;
    std::memcpy(&bits, &sum, sizeof bits);
    return static_cast<uint8_t>(bits);
}

// Loops as simple as this one become vector code, which the library's rounding would not.
void to_bytes(const float* values, size_t count, uint8_t* out) {
    for (size_t k = 0; k < count; ++k) out[k] = to_byte(values[k]);
}

void make_grey(float* line, size_t width) {
    for (size_t x = 0; x < width; ++x) {
        float* pixel = line + 3 * x;
        const float grey = kRed * pixel[0] + kGreen * pixel[1] + kBlue * pixel[2];
        pixel[0] = pixel[1] = pixel[2] = grey < 1.0f ? grey : 1.0f;
    }
}

template <class Float>
class Reader {
public:
    explicit Reader(const Planes& planes) : planes_(planes), data_(static_cast<const Float*>(planes.data)) {}

    // The clipped pixels of folded row y, columns first..last - 1 of it: [fold][(last - first) fold][3].
    void read_rows(size_t y, size_t first, size_t last, float* out) const {
        const size_t fold = planes_.fold, row = (last - first) * fold * 3;
        const ptrdiff_t* strides = planes_.strides;
        const Float* start = data_ + static_cast<ptrdiff_t>(y) * strides[3];
        if (strides[4] == 1) {  // planes: one after the other
            for (size_t i = 0; i < fold; ++i) {
                for (size_t j = 0; j < fold; ++j) {
                    for (size_t c = 0; c < 3; ++c) {
                        const Float* from = start + offset_of(c, i, j) + static_cast<ptrdiff_t>(first);
                        float* to = out + i * row + 3 * j + c;
                        for (size_t x = 0; x < last - first; ++x) to[3 * fold * x] = value(from + x);
                    }
                }
            }
            return;
        }
        for (size_t x = first; x < last; ++x) {  // channels side by side
            const Float* from = start + static_cast<ptrdiff_t>(x) * strides[4];
            float* to = out + (x - first) * fold * 3;
            for (size_t i = 0; i < fold; ++i) {
                for (size_t j = 0; j < fold; ++j) {
                    for (size_t c = 0; c < 3; ++c) to[i * row + 3 * j + c] = value(from + offset_of(c, i, j));
                }
            }
        }
    }

private:
    ptrdiff_t offset_of(size_t c, size_t i, size_t j) const {
        return static_cast<ptrdiff_t>(c) * planes_.strides[0] + static_cast<ptrdiff_t>(i) * planes_.strides[1] +
               static_cast<ptrdiff_t>(j) * planes_.strides[2];
    }

    float value(const Float* from) const { return clipped(read(from) + planes_.offset); }

    Planes planes_;
    const Float* data_;
};

// As `write_folded_avx512`: channels become bytes first, and bytes change places. `bytes` has room for 48 a position.
template <class Float>
void write_folded(const Float* from, float offset, size_t positions, uint8_t* bytes, uint8_t* to, size_t apart) {
    constexpr size_t fold = 4, square = fold * fold, channels = 3 * square;
    for (size_t k = 0; k < positions * channels; ++k) bytes[k] = to_byte(clipped(read(from + k) + offset));
    for (size_t i = 0; i < fold; ++i) {
        const uint8_t* place = bytes + i * fold;
        uint8_t* const end = to + i * apart + 3 * fold * positions;
        for (uint8_t* pixel = to + i * apart; pixel != end; pixel += 3 * fold, place += channels) {
            for (size_t j = 0; j < fold; ++j) {
                for (size_t c = 0; c < 3; ++c) pixel[3 * j + c] = place[c * square + j];
            }
        }
    }
}

// The most frequent case, in a quarter of the time: what a convolution in NHWC leaves, all its channels side by side,
// at the full size and in colour.
template <class Float>
void write_channels(const Planes& planes, size_t top, size_t left, uint8_t* out, size_t height, size_t width,
                    ptrdiff_t stride) {
    constexpr size_t fold = 4;
    const size_t first = left / fold, positions = (left + width + fold - 1) / fold - first;
    const size_t apart = 3 * fold * positions + 4, skipped = (left - first * fold) * 3;
    std::vector<uint8_t> rows(fold * apart), bytes;
#ifdef SODEC_X86
    const bool vectors = selected_isa() == Isa::avx512vnni;
#else
    const bool vectors = false;
#endif
    if (!vectors) bytes.resize(positions * fold * fold * 3);
    for (size_t y = top / fold; y * fold < top + height; ++y) {
        const Float* from = static_cast<const Float*>(planes.data) + static_cast<ptrdiff_t>(y) * planes.strides[3] +
                            static_cast<ptrdiff_t>(first) * planes.strides[4];
#ifdef SODEC_X86
        if (vectors) write_folded_avx512(from, planes.kind, planes.offset, positions, rows.data(), apart);
#endif
        if (!vectors) write_folded(from, planes.offset, positions, bytes.data(), rows.data(), apart);
        for (size_t i = 0; i < fold; ++i) {
            const size_t row = y * fold + i;
            if (row < top || row >= top + height) continue;
            std::memcpy(out + static_cast<ptrdiff_t>(row - top) * stride, rows.data() + i * apart + skipped, 3 * width);
        }
    }
}

bool has_adjacent_channels(const Planes& planes) {
    const ptrdiff_t* strides = planes.strides;
    return planes.fold == 4 && strides[0] == 16 && strides[1] == 4 && strides[2] == 1 && strides[4] == 48;
}

template <class Float>
void write(const Planes& planes, size_t top, size_t left, size_t shrink, bool grey, uint8_t* out, size_t height,
           size_t width, ptrdiff_t stride) {
    if (shrink == 1 && !grey && has_adjacent_channels(planes)) {
        write_channels<Float>(planes, top, left, out, height, width, stride);
        return;
    }
    const Reader<Float> reader(planes);
    const size_t fold = planes.fold, first = left / fold, last = (left + width * shrink + fold - 1) / fold;
    const size_t row = (last - first) * fold * 3, skipped = (left - first * fold) * 3;
    std::vector<float> rows(fold * row), means(shrink > 1 ? 3 * width : 0);
    const float share = 1.0f / static_cast<float>(shrink * shrink);
    size_t held = SIZE_MAX;  // the folded row that is in `rows`
    for (size_t to = 0; to < height; ++to) {
        float* line = nullptr;
        if (shrink > 1) means.assign(means.size(), 0.0f);
        for (size_t k = 0; k < shrink; ++k) {
            const size_t from = top + to * shrink + k;
            if (from / fold != held) reader.read_rows(held = from / fold, first, last, rows.data());
            line = rows.data() + from % fold * row + skipped;
            if (shrink == 1) break;
            for (size_t x = 0; x < width; ++x) {
                for (size_t m = 0; m < shrink; ++m) {
                    for (size_t c = 0; c < 3; ++c) means[3 * x + c] += share * line[3 * (x * shrink + m) + c];
                }
            }
            line = means.data();
        }
        if (grey) make_grey(line, width);
        to_bytes(line, 3 * width, out + static_cast<ptrdiff_t>(to) * stride);
    }
}

}  // namespace

void write_pixels(const Planes& planes, size_t top, size_t left, size_t shrink, bool grey, uint8_t* out, size_t height,
                  size_t width, ptrdiff_t stride) {
    if (planes.kind == FloatKind::float32) {
        write<float>(planes, top, left, shrink, grey, out, height, width, stride);
    } else {
        write<uint16_t>(planes, top, left, shrink, grey, out, height, width, stride);
    }
}

}  // namespace sodec
