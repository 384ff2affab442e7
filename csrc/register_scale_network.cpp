#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "errors.h"
#include "scale_network/network.h"

namespace py = pybind11;

namespace sodec {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// Exact types only: a silent cast of weights would be a silent change of the format.
template <class T>
Array<T> exact(const py::handle& value, int dimensions, size_t layer, const char* name) {
    if (!py::isinstance<Array<T>>(value) || py::reinterpret_borrow<py::array>(value).ndim() != dimensions) {
        throw InvalidWeights("scale network, layer " + std::to_string(layer) + ": " + name + " is not a contiguous " +
                             std::to_string(dimensions) + "-D array of " + std::string(py::str(py::dtype::of<T>())));
    }
    return py::reinterpret_borrow<Array<T>>(value);
}

int integer(const py::handle& value, size_t layer, const char* name) {
    try {
        return py::cast<int>(value);
    } catch (const py::cast_error&) {
        throw InvalidWeights("scale network, layer " + std::to_string(layer) + ": " + name + " is not an integer");
    }
}

template <class T>
std::vector<T> values(const Array<T>& array) {
    return {array.data(), array.data() + array.size()};
}

ScaleNetwork make(const py::sequence& layers) {
    std::vector<ScaleLayer> native;
    for (size_t number = 0; number < layers.size(); ++number) {
        const py::object item = layers[number];
        if (!py::isinstance<py::tuple>(item) || py::len(item) != 5) {
            throw InvalidWeights("scale network, layer " + std::to_string(number) +
                                 " is not a tuple of weights, bias, multiplier, shift, upsample");
        }
        const auto layer = py::reinterpret_borrow<py::tuple>(item);
        const auto weights = exact<int8_t>(layer[0], 4, number, "weights");
        if (weights.shape(1) != weights.shape(2) || weights.shape(0) > INT16_MAX || weights.shape(1) > 3 ||
            weights.shape(3) > INT16_MAX) {
            throw InvalidWeights("scale network, layer " + std::to_string(number) +
                                 ": weights are not of the shape (out, k, k, in)");
        }
        native.push_back({static_cast<int>(weights.shape(0)), static_cast<int>(weights.shape(3)),
                          static_cast<int>(weights.shape(1)), values(weights),
                          values(exact<int32_t>(layer[1], 1, number, "bias")),
                          values(exact<int32_t>(layer[2], 1, number, "multiplier")), integer(layer[3], number, "shift"),
                          integer(layer[4], number, "upsample")});
    }
    return ScaleNetwork(native, selected_isa());
}

// Any memory layout, but exactly this type.
template <class T>
Array<T> argument(const py::array& value, const char* name) {
    if (!py::isinstance<py::array_t<T>>(value)) {
        throw py::type_error(std::string(name) + " is " + std::string(py::str(value.dtype())) + ", not " +
                             std::string(py::str(py::dtype::of<T>())));
    }
    return Array<T>(value);
}

struct Sides {
    size_t height, width;
};

// Height and width of z, whose channels are its first or its last axis, once z and offset fit the network.
Sides checked_sides(const ScaleNetwork& network, const Array<int16_t>& z, bool channels_first,
                    const Array<int32_t>& offset) {
    const auto channels = channels_first ? 0 : 2, rows = channels_first ? 1 : 0, columns = rows + 1;
    if (z.ndim() != 3 || z.shape(channels) != network.inputs()) {
        const auto inputs = std::to_string(network.inputs());
        const auto shape = channels_first ? "(" + inputs + ", h, w)" : "(h, w, " + inputs + ")";
        throw std::invalid_argument("z is not of the shape " + shape);
    }
    if (offset.ndim() != 1 || offset.shape(0) != network.outputs()) {
        throw std::invalid_argument("offset is not of the shape (" + std::to_string(network.outputs()) + ",)");
    }
    constexpr py::ssize_t largest = 1 << 20;
    if (z.shape(rows) > largest || z.shape(columns) > largest) {
        throw std::invalid_argument("z is larger than 2^20 on a side");
    }
    return {static_cast<size_t>(z.shape(rows)), static_cast<size_t>(z.shape(columns))};
}

Array<uint8_t> indexes(const ScaleNetwork& network, const py::array& any_z, const py::array& any_offset) {
    const auto z = argument<int16_t>(any_z, "z");
    const auto offset = argument<int32_t>(any_offset, "offset");
    const auto [height, width] = checked_sides(network, z, false, offset);
    const auto upsample = static_cast<size_t>(network.upsample());
    Array<uint8_t> out({height * upsample, width * upsample, static_cast<size_t>(network.outputs())});
    uint8_t* to = out.mutable_data();
    {
        const py::gil_scoped_release release;
        network.indexes(z.data(), height, width, offset.data(), to);
    }
    return out;
}

Array<uint8_t> planes(const ScaleNetwork& network, const py::array& any_z, const py::array& any_offset, size_t rows,
                      size_t columns, uint8_t none) {
    const auto z = argument<int16_t>(any_z, "z");
    const auto offset = argument<int32_t>(any_offset, "offset");
    const auto [height, width] = checked_sides(network, z, true, offset);
    const auto upsample = static_cast<size_t>(network.upsample());
    if (rows > height * upsample || columns > width * upsample) {
        throw std::invalid_argument("z has indexes for " + std::to_string(height * upsample) + " rows and " +
                                    std::to_string(width * upsample) + " columns, not " + std::to_string(rows) +
                                    " and " + std::to_string(columns));
    }
    Array<uint8_t> out({static_cast<size_t>(network.outputs()), rows, columns});
    uint8_t* to = out.mutable_data();
    {
        const py::gil_scoped_release release;
        network.planes(z.data(), height, width, offset.data(), none, to, rows, columns);
    }
    return out;
}

}  // namespace

void register_scale_network(py::module_& module) {
    py::class_<ScaleNetwork>(module, "ScaleNetwork")
        .def(py::init(&make), py::arg("layers"))
        .def("indexes", &indexes, py::arg("z"), py::arg("offset"))
        .def("planes", &planes, py::arg("z"), py::arg("offset"), py::arg("rows"), py::arg("columns"), py::arg("none"))
        .def_property_readonly("cpu", [](const ScaleNetwork& self) { return isa_name(self.isa()); });
}

}  // namespace sodec
