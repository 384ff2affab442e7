// A driver for compilers without libFuzzer: runs each file it is given, then alterations of them for some seconds.
//
//     fuzz_rans -seconds=60 build/corpus/*
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int count, char** arguments) {
    double seconds = 0;
    std::vector<std::vector<uint8_t>> corpus;
    for (int i = 1; i < count; ++i) {
        if (strncmp(arguments[i], "-seconds=", 9) == 0) {
            seconds = atof(arguments[i] + 9);
            continue;
        }
        std::ifstream file(arguments[i], std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        LLVMFuzzerTestOneInput(corpus.back().data(), corpus.back().size());
    }
    if (corpus.empty()) corpus.push_back(std::vector<uint8_t>(64, 0));
    std::mt19937 random(static_cast<unsigned>(std::chrono::steady_clock::now().time_since_epoch().count()));
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    size_t runs = corpus.size();
    for (; std::chrono::steady_clock::now() < end; ++runs) {
        std::vector<uint8_t> input = corpus[random() % corpus.size()];
        for (unsigned changes = random() % 6; changes > 0 && !input.empty(); --changes) {
            const size_t at = random() % input.size();
            switch (random() % 4) {
                case 0: input[at] ^= static_cast<uint8_t>(1u << random() % 8); break;
                case 1: input[at] = static_cast<uint8_t>(random()); break;
                case 2: input.resize(at); break;
                default: input.insert(input.end(), input.begin(), input.begin() + static_cast<long>(at));
            }
        }
        if (input.size() < 1 << 16) {
            std::ofstream("last-input", std::ios::binary)
                .write(reinterpret_cast<const char*>(input.data()), static_cast<long>(input.size()));
            LLVMFuzzerTestOneInput(input.data(), input.size());
        }
    }
    printf("%zu inputs, nothing found\n", runs);
    return 0;
}
