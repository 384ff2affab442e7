#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "cpu.h"
#include "norm/norm.h"
#include "parallel.h"

namespace py = pybind11;

namespace sodec {
namespace {

constexpr size_t kLeastPositions = 2048;  // of a thread

bool has_channel_norm() {
#ifdef SODEC_X86
    return selected_isa() == Isa::avx512vnni;
#else
    return false;
#endif
}

void channel_norm_silu(const py::array& x, const py::array& weight, const py::array& bias, [[maybe_unused]] float eps,
                       py::array& out, [[maybe_unused]] size_t threads) {
    if (!has_channel_norm()) throw std::invalid_argument("channel_norm_silu needs AVX-512");
    using Halves = py::array_t<uint16_t, py::array::c_style>;
    using Floats = py::array_t<float, py::array::c_style>;
    if (!py::isinstance<Halves>(x) || !py::isinstance<Halves>(out) || x.ndim() != 2 || out.ndim() != 2 ||
        out.shape(0) != x.shape(0) || out.shape(1) != x.shape(1) || !out.writeable()) {
        throw std::invalid_argument("x and out must be bfloat16 as uint16, contiguous, (positions, channels)");
    }
    if (x.shape(1) < 1 || x.shape(1) > kMaxNormChannels) {
        throw std::invalid_argument("channels must be 1 to 256 (got " + std::to_string(x.shape(1)) + ")");
    }
    if (!py::isinstance<Floats>(weight) || !py::isinstance<Floats>(bias) || weight.ndim() != 1 || bias.ndim() != 1 ||
        weight.shape(0) != x.shape(1) || bias.shape(0) != x.shape(1)) {
        throw std::invalid_argument("weight and bias must be float32 (channels,)");
    }
#ifdef SODEC_X86
    const ChannelNorm norm{static_cast<const uint16_t*>(x.data()),
                           static_cast<uint16_t*>(out.mutable_data()),
                           x.shape(0),
                           static_cast<int>(x.shape(1)),
                           static_cast<const float*>(weight.data()),
                           static_cast<const float*>(bias.data()),
                           eps};
    const py::gil_scoped_release release;
    in_bands(static_cast<size_t>(norm.positions), threads, kLeastPositions, [&norm](size_t first, size_t last) {
        channel_norm_silu_avx512(&norm, static_cast<int64_t>(first), static_cast<int64_t>(last));
    });
#endif
}

}  // namespace

void register_norm(py::module_& module) {
    module.def("has_channel_norm", &has_channel_norm);
    module.def("channel_norm_silu", &channel_norm_silu, py::arg("x"), py::arg("weight"), py::arg("bias"),
               py::arg("eps"), py::arg("out"), py::arg("threads"));
}

}  // namespace sodec
