#include <pybind11/pybind11.h>

#include <exception>

#include "errors.h"

namespace py = pybind11;

namespace sodec {
namespace {

void raise(const char* name, const char* what) {
    // Imported when needed: sodec.errors must not have to exist for the module to load.
    py::object type = py::module_::import("sodec.errors").attr(name);
    PyErr_SetString(type.ptr(), what);
}

}  // namespace

void register_errors(py::module_&) {
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const CorruptStream& e) {
            raise("CorruptStreamError", e.what());
        } catch (const InvalidTable& e) {
            raise("InvalidTableError", e.what());
        } catch (const InvalidWeights& e) {
            raise("WeightsError", e.what());
        } catch (const DeviceFailure& e) {
            raise("DeviceError", e.what());
        }
    });
}

}  // namespace sodec
