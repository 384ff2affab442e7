#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

#include "cpu.h"
#include "parallel.h"

namespace py = pybind11;

namespace sodec {

void register_cpu(py::module_& module) {
    module.def(
        "cpu",
        []() {
            py::list names;
            for (Isa isa : processor().supported) names.append(isa_name(isa));
            py::dict answer;
            answer["chosen"] = isa_name(selected_isa());
            answer["supported"] = names;
            answer["bfloat16"] = processor().bfloat16();
            return answer;
        },
        "The instruction set in use, those that could be, and whether bf16 is multiplied natively:\n"
        "{'chosen': name, 'supported': [names], 'bfloat16': bool}.\n\n"
        "The environment variable SODEC_CPU forces one by name; DeviceError where it can't be served.");
    module.def(
        "use_openmp", [](uintptr_t address) { openmp_parallel = reinterpret_cast<OpenMpParallel>(address); },
        py::arg("address"));
}

}  // namespace sodec
