// sodec._native: one register_<topic> per topic, each in a file of its own.
#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace sodec {
void register_errors(py::module_& module);
void register_checksum(py::module_& module);
void register_cpu(py::module_& module);
void register_norm(py::module_& module);
void register_pixels(py::module_& module);
void register_rans(py::module_& module);
void register_scale_network(py::module_& module);
void register_winograd(py::module_& module);
}  // namespace sodec

PYBIND11_MODULE(_native, module, py::mod_gil_not_used()) {
    module.doc() = "The native part of sodec: entropy coder, integer scale network, norms and convolutions, 8-bit pixels, processor features.";
    sodec::register_errors(module);
    sodec::register_checksum(module);
    sodec::register_cpu(module);
    sodec::register_norm(module);
    sodec::register_pixels(module);
    sodec::register_rans(module);
    sodec::register_scale_network(module);
    sodec::register_winograd(module);
}
