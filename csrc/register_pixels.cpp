#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <stdexcept>

#include "parallel.h"
#include "pixels/pixels.h"

namespace py = pybind11;

namespace sodec {
namespace {

constexpr size_t kLeastPixels = 1 << 16;  // of a thread

void pixels(const py::array& planes, float offset, size_t top, size_t left, size_t shrink, bool grey, py::array& out,
            size_t threads) {
    const bool half = py::isinstance<py::array_t<uint16_t>>(planes);
    if (!half && !py::isinstance<py::array_t<float>>(planes)) {
        throw py::type_error("planes must be float32, or bfloat16 as uint16");
    }
    if (planes.ndim() != 5 || planes.shape(0) != 3 || planes.shape(1) != planes.shape(2) || planes.shape(1) < 1) {
        throw std::invalid_argument("planes must have the shape (3, fold, fold, height, width)");
    }
    if (!py::isinstance<py::array_t<uint8_t>>(out) || out.ndim() != 3 || out.shape(2) != 3 || out.strides(2) != 1 ||
        out.strides(1) != 3 || !out.writeable()) {
        throw std::invalid_argument("out must be uint8 (height, width, 3), its rows contiguous, and writable");
    }
    if (shrink < 1) throw std::invalid_argument("shrink must be 1 or more");
    const auto fold = static_cast<size_t>(planes.shape(1));
    const auto height = static_cast<size_t>(out.shape(0)), width = static_cast<size_t>(out.shape(1));
    const auto rows = static_cast<size_t>(planes.shape(3)) * fold,
               columns = static_cast<size_t>(planes.shape(4)) * fold;
    // In this order no sum or product can overflow.
    if (top > rows || left > columns || height > (rows - top) / shrink || width > (columns - left) / shrink) {
        throw std::invalid_argument("out reaches beyond the planes");
    }
    if (height == 0 || width == 0) return;
    Planes native{planes.data(), half ? FloatKind::bfloat16 : FloatKind::float32, {}, fold, offset};
    for (int axis = 0; axis < 5; ++axis) native.strides[axis] = planes.strides(axis) / planes.itemsize();
    auto* to = static_cast<uint8_t*>(out.mutable_data());
    const py::gil_scoped_release release;
    const ptrdiff_t stride = out.strides(0);
    // Bands of whole folded rows, so that no row of floats is read twice.
    const size_t unit = fold * shrink, units = (height + unit - 1) / unit;
    in_bands(units, threads, std::max<size_t>(1, kLeastPixels / (unit * width)), [&](size_t first, size_t last) {
        const size_t begin = first * unit, end = std::min(height, last * unit);
        write_pixels(native, top + begin * shrink, left, shrink, grey, to + static_cast<ptrdiff_t>(begin) * stride,
                     end - begin, width, stride);
    });
}

}  // namespace

void register_pixels(py::module_& module) {
    module.def("pixels", &pixels, py::arg("planes"), py::arg("offset"), py::arg("top"), py::arg("left"),
               py::arg("shrink"), py::arg("grey"), py::arg("out"), py::arg("threads") = 1);
}

}  // namespace sodec
