// From the floats of a decoder to 8-bit pixels, in one pass.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sodec {

enum class FloatKind { float32, bfloat16 };

// A picture of three colours in floats, folded: pixel (c, y fold + i, x fold + j) is at [c][i][j][y][x].
struct Planes {
    const void* data;
    FloatKind kind;
    ptrdiff_t strides[5];  // in elements: of c, i, j, y, x
    size_t fold;
    float offset;  // is added to every value
};

// Rows and columns of `planes` from (top, left) on to 8-bit RGB [height][width][3], each row `stride` bytes after the
// one before. Values are clipped to 0..1, averaged over squares of `shrink` pixels, made grey by Rec. 601 if asked for,
// and rounded to the nearest of 255, halves to even. NaN becomes 0.
void write_pixels(const Planes& planes, size_t top, size_t left, size_t shrink, bool grey, uint8_t* out, size_t height,
                  size_t width, ptrdiff_t stride);

// Of a folded row whose 48 channels (3 colours, 4 rows, 4 columns) lie side by side: four rows of 12 `positions` bytes,
// `apart` from each other. The four bytes behind each row are overwritten too.
void write_folded_avx512(const void* from, FloatKind kind, float offset, size_t positions, uint8_t* to, size_t apart);

}  // namespace sodec
