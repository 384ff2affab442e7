// Which kernels a coder runs, and a count of what they did.
#pragma once

#include <cstdint>

#include "../cpu.h"
#include "kernels.h"

namespace sodec::rans {

// What an instruction set has for a number of lanes. Where decode or encode is null, scalar code does all.
struct Kernels {
    DecodeGroups decode;
    EncodeGroups encode;
    LookUp look_up;
    Compact compact;
    Expand expand;
    Isa groups_by;  // whose decode and encode these are
};

Kernels kernels_of(Isa isa, int lanes);

// Groups of symbols that the kernels of an instruction set have decoded and encoded since the module was loaded: the
// tests' proof that what they forced is what ran.
struct GroupCounts {
    uint64_t decoded, encoded;
};
GroupCounts group_counts(Isa isa);
void count_groups(Isa isa, GroupCounts more);

}  // namespace sodec::rans
