#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>

#include "cpu.h"
#include "parallel.h"
#include "winograd/winograd.h"

namespace py = pybind11;

namespace sodec {
namespace {

constexpr int64_t kShare = kWinogradTiles;  // tiles that a thread takes at once
constexpr std::align_val_t kAlignment{64};

struct Release {
    void operator()(char* memory) const { ::operator delete(memory, kAlignment); }
};

// Processors with matrix instructions run the definition faster by those.
bool has_winograd() {
#ifdef SODEC_AVX512BF16
    return selected_isa() == Isa::avx512vnni && processor().avx512_bf16 && !processor().amx_bf16;
#else
    return false;
#endif
}

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

bool is_halves(const py::array& values, py::ssize_t dimensions) {
    return py::isinstance<py::array_t<uint16_t, py::array::c_style>>(values) && values.ndim() == dimensions;
}

void winograd(const py::array& x, const py::array& weights, const py::array& bias,
              const std::optional<py::array>& residual, [[maybe_unused]] bool silu, py::array& out,
              [[maybe_unused]] size_t threads) {
    require(has_winograd(), "winograd needs AVX512-BF16");
    require(is_halves(x, 4) && x.shape(3) > 0, "x must be bfloat16 as uint16, contiguous, (B, H, W, inputs)");
    require(is_halves(out, 4) && out.writeable() && out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1) &&
                out.shape(2) == x.shape(2),
            "out must be bfloat16 as uint16, contiguous, writeable, (B, H, W, outputs)");
    require(
        is_halves(weights, 5) && weights.shape(1) == 16 && 2 * weights.shape(2) == x.shape(3) && weights.shape(4) == 2,
        "weights must be bfloat16 as uint16, contiguous, (blocks, 16, inputs / 2, 16 group, 2)");
    const py::ssize_t group = weights.shape(3) / 16;
    require(weights.shape(3) % 16 == 0 && group >= 2 && group <= 5, "group must be 2 to 5");
    const py::ssize_t outputs = out.shape(3), most = weights.shape(0) * weights.shape(3);
    require(outputs <= most && outputs > most - 16, "outputs must be those of the weights, less 15 at most");
    require(
        py::isinstance<py::array_t<float, py::array::c_style>>(bias) && bias.ndim() == 1 && bias.shape(0) == outputs,
        "bias must be float32 (outputs,)");
    if (residual) {
        require(is_halves(*residual, 4), "residual must be bfloat16 as uint16, contiguous, like out");
        for (int i = 0; i < 4; ++i) require(residual->shape(i) == out.shape(i), "residual must have the shape of out");
    }
#ifdef SODEC_AVX512BF16
    const Winograd w{static_cast<const uint16_t*>(x.data()),
                     static_cast<const uint16_t*>(weights.data()),
                     static_cast<const float*>(bias.data()),
                     residual ? static_cast<const uint16_t*>(residual->data()) : nullptr,
                     static_cast<uint16_t*>(out.mutable_data()),
                     x.shape(0),
                     x.shape(1),
                     x.shape(2),
                     x.shape(3),
                     outputs,
                     static_cast<int>(group),
                     silu};
    const py::gil_scoped_release release;
    // Shares of equal size would all wait for the slowest thread, where something else runs on its core.
    const int64_t tiles = winograd_tiles(w);
    std::atomic<int64_t> next{0};
    const auto shares = static_cast<size_t>((tiles + kShare - 1) / kShare);
    side_by_side(std::max<size_t>(1, std::min(threads, shares)), [&](size_t) {
        const auto bytes = static_cast<size_t>(winograd_scratch(w));
        const std::unique_ptr<char, Release> scratch(static_cast<char*>(::operator new(bytes, kAlignment)));
        for (int64_t first = next.fetch_add(kShare); first < tiles; first = next.fetch_add(kShare)) {
            winograd_avx512bf16(w, first, std::min(first + kShare, tiles), scratch.get());
        }
    });
#endif
}

}  // namespace

void register_winograd(py::module_& module) {
    module.def("has_winograd", &has_winograd);
    module.def("winograd", &winograd, py::arg("x"), py::arg("weights"), py::arg("bias"), py::arg("residual"),
               py::arg("silu"), py::arg("out"), py::arg("threads"));
}

}  // namespace sodec
