#include <pybind11/pybind11.h>

#include <stdexcept>

#include "checksum.h"

namespace py = pybind11;

namespace sodec {

void register_checksum(py::module_& module) {
    module.def(
        "crc32c",
        [](const py::buffer& data) {
            const py::buffer_info view = data.request();
            if (view.itemsize != 1 || view.ndim != 1 || (view.size > 1 && view.strides[0] != 1)) {
                throw std::invalid_argument("a checksum is of one contiguous run of bytes");
            }
            const py::gil_scoped_release release;
            return crc32c(static_cast<const uint8_t*>(view.ptr), static_cast<size_t>(view.size));
        },
        py::arg("data"), "CRC-32C of bytes: 0xE3069283 for b'123456789'.");
}

}  // namespace sodec
