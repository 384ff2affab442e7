// What this processor can run, asked once and in one place.
#pragma once

#include <string>
#include <vector>

namespace sodec {

// In order of priority: a later one is preferred where several can run.
enum class Isa { portable = 0, avx2 = 1, avx512vnni = 2 };

// The name by which SODEC_CPU, sodec._native.cpu() and the tests know an instruction set.
const char* name_of(Isa isa);

struct Processor {
    std::vector<Isa> supported;  // by this build, the processor and its operating system; portable first
    bool bfloat16;               // multiplied natively (AVX512-BF16 or AMX); elsewhere bf16 is slower than float32
};

const Processor& processor();

// The set to use: the best one supported, or the one that the environment variable SODEC_CPU names.
// Throws DeviceFailure, naming the value, where that one is unknown or can't run here.
Isa chosen();

}  // namespace sodec
