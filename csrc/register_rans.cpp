#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu.h"
#include "rans/decoder.h"
#include "rans/dispatch.h"
#include "rans/encoder.h"
#include "rans/tables.h"

namespace py = pybind11;

namespace sodec {
namespace {

using Symbols = py::array_t<int16_t, py::array::c_style>;
using Indexes = py::array_t<uint8_t, py::array::c_style>;
using Integers = py::array_t<int32_t, py::array::c_style>;

std::vector<int32_t> to_vector(const Integers& array) {
    if (array.ndim() != 1) throw std::invalid_argument("tables are made of 1-D arrays");
    return {array.data(), array.data() + array.size()};
}

Integers to_array(const std::vector<int32_t>& values) {
    return Integers(static_cast<py::ssize_t>(values.size()), values.data());
}

py::buffer_info bytes_of(const py::buffer& data) {
    py::buffer_info view = data.request();
    if (view.itemsize != 1 || view.ndim != 1 || (view.size > 1 && view.strides[0] != 1)) {
        throw std::invalid_argument("a payload is one contiguous run of bytes");
    }
    return view;
}

// The decoder that Python holds. The view keeps the bytes alive; the lock makes calls of two threads take turns.
class PyDecoder {
public:
    explicit PyDecoder(const py::buffer& data)
        : view_(bytes_of(data)),
          decoder_(static_cast<const uint8_t*>(view_.ptr), static_cast<size_t>(view_.size), selected_isa()) {}

    Symbols read(const Indexes& indexes, const rans::Tables& tables) {
        Symbols symbols(std::vector<py::ssize_t>(indexes.shape(), indexes.shape() + indexes.ndim()));
        const uint8_t* from = indexes.data();
        int16_t* to = symbols.mutable_data();
        const size_t n = static_cast<size_t>(indexes.size());
        {
            const py::gil_scoped_release release;
            const std::lock_guard<std::mutex> lock(mutex_);
            decoder_.read(from, n, tables, to);
        }
        return symbols;
    }

    void finish() {
        const std::lock_guard<std::mutex> lock(mutex_);
        decoder_.finish();
    }

    const char* cpu() const { return isa_name(decoder_.isa()); }

    size_t position() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return decoder_.position();
    }

private:
    py::buffer_info view_;
    rans::Decoder decoder_;
    std::mutex mutex_;
};

py::bytes encode(const py::list& sections, int lanes) {
    std::vector<rans::Section> native;
    std::vector<py::object> alive;  // holds the arrays while the GIL is released
    for (const py::handle& item : sections) {
        const auto section = py::cast<py::tuple>(item);
        const auto symbols = py::cast<Symbols>(section[0]);
        const auto indexes = py::cast<Indexes>(section[1]);
        if (symbols.size() != indexes.size()) {
            throw std::invalid_argument("section " + std::to_string(native.size()) + " has " +
                                        std::to_string(symbols.size()) + " symbols but " +
                                        std::to_string(indexes.size()) + " indexes");
        }
        native.push_back({symbols.data(), indexes.data(), static_cast<size_t>(symbols.size()),
                          &py::cast<const rans::Tables&>(section[2])});
        alive.push_back(symbols);
        alive.push_back(indexes);
        alive.push_back(py::reinterpret_borrow<py::object>(section[2]));
    }
    const Isa isa = selected_isa();
    std::vector<uint8_t> payload;
    {
        const py::gil_scoped_release release;
        payload = rans::encode(native, lanes, isa);
    }
    return py::bytes(reinterpret_cast<const char*>(payload.data()), payload.size());
}

}  // namespace

void register_rans(py::module_& module) {
    py::class_<rans::Tables>(module, "Tables")
        .def(py::init([](const Integers& cumulative, const Integers& offsets, const Integers& minimums, int precision) {
                 return std::make_unique<rans::Tables>(to_vector(cumulative), to_vector(offsets), to_vector(minimums),
                                                       precision);
             }),
             py::arg("cumulative"), py::arg("offsets"), py::arg("minimums"), py::arg("precision"))
        .def_property_readonly("precision", &rans::Tables::precision)
        .def_property_readonly("count", &rans::Tables::count)
        .def_property_readonly("cumulative", [](const rans::Tables& self) { return to_array(self.cumulative()); })
        .def_property_readonly("offsets", [](const rans::Tables& self) { return to_array(self.offsets()); })
        .def_property_readonly("minimums", [](const rans::Tables& self) { return to_array(self.minimums()); });

    py::class_<PyDecoder>(module, "Decoder")
        .def(py::init<const py::buffer&>(), py::arg("data"))
        .def("read", &PyDecoder::read, py::arg("indexes").noconvert(), py::arg("tables"))
        .def("finish", &PyDecoder::finish)
        .def_property_readonly("position", &PyDecoder::position)
        .def_property_readonly("cpu", &PyDecoder::cpu);

    module.def("encode", &encode, py::arg("sections"), py::arg("lanes") = 0);
    module.def("rans_groups", []() {
        py::dict counts;
        for (Isa isa : processor().supported) {
            const rans::GroupCounts count = rans::group_counts(isa);
            counts[isa_name(isa)] = py::make_tuple(count.decoded, count.encoded);
        }
        return counts;
    });
    module.def(
        "payload_info",
        [](const py::buffer& data) {
            const py::buffer_info view = bytes_of(data);
            const auto info = rans::payload_info(static_cast<const uint8_t*>(view.ptr), static_cast<size_t>(view.size));
            return py::make_tuple(info.lanes, info.precision, info.state_bytes);
        },
        py::arg("data"));
}

}  // namespace sodec
