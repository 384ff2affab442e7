// What this processor can run, asked once and in one place.
#pragma once

#include <string>
#include <vector>

namespace sodec {

// In order of priority: a later one is preferred where several can run.
enum class Isa { portable = 0, avx2 = 1, avx512vnni = 2 };

// The name by which SODEC_CPU, sodec._native.cpu() and the tests know an instruction set.
const char* name_of(Isa isa);

// Those that both this build and this processor (with its operating system) can run, portable first.
const std::vector<Isa>& supported();

// The set to use: the best one supported, or the one that the environment variable SODEC_CPU names.
// Throws std::runtime_error, naming the value, where that one is unknown or can't run here.
Isa chosen();

}  // namespace sodec
