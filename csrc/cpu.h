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
    bool bfloat16;               // it has instructions for bf16 (AVX512-BF16 or AMX); else float32 is faster
};

const Processor& processor();

// The instruction set to use: the best one supported, or the one that the environment variable SODEC_CPU names.
// Throws DeviceFailure, naming the value, if that one is unknown or can't run here.
Isa selected_isa();

}  // namespace sodec
