// Errors that have a class of their own in sodec/errors.py; register_errors.cpp translates them.
#pragma once

#include <stdexcept>
#include <string>

namespace sodec {

struct CorruptStream : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct InvalidTable : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct InvalidWeights : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct DeviceFailure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace sodec
