#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu.h"

namespace py = pybind11;

namespace sodec {

void register_cpu(py::module_& module) {
    module.def(
        "cpu",
        []() {
            py::list names;
            for (Isa isa : supported()) names.append(name_of(isa));
            py::dict answer;
            answer["chosen"] = name_of(chosen());
            answer["supported"] = names;
            return answer;
        },
        "The instruction set in use and those that could be: {'chosen': name, 'supported': [names]}.\n\n"
        "The environment variable SODEC_CPU forces one by name; RuntimeError where it can't be served.");
}

}  // namespace sodec
