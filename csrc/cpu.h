// What this processor can run. No other file asks it.
#pragma once

#include <string>
#include <vector>

namespace sodec {

// In order of priority: a later one is preferred where several can run.
enum class Isa { portable = 0, avx2 = 1, avx512vnni = 2 };

// The name by which SODEC_CPU, sodec._native.cpu() and the tests know an instruction set.
const char* isa_name(Isa isa);

struct Processor {
    std::vector<Isa> supported;  // by this build, the processor and its operating system; portable first
    bool avx512_bf16;            // it has the instructions for vectors of bf16
    bool amx_bf16;               // it has those for matrices of bf16, which are several times faster

    // Whether bf16 is faster than float32.
    bool bfloat16() const { return avx512_bf16 || amx_bf16; }
};

const Processor& processor();

// The instruction set to use: the best one supported, or the one that the environment variable SODEC_CPU names.
// Throws DeviceFailure, naming the value, if that one is unknown or can't run here.
Isa selected_isa();

}  // namespace sodec
