// Dispatch: the kernels that run for an instruction set and a number of lanes, and counts of what they did.
#pragma once

#include <cstdint>

#include "../cpu.h"
#include "kernels.h"

namespace sodec::rans {

// Where decode or encode is null, scalar code does all groups.
struct Kernels {
    DecodeGroups decode;
    EncodeGroups encode;
    LookUp look_up;
    Compact compact;
    Expand expand;
    Isa groups_isa;  // the instruction set of decode and encode
};

Kernels kernels_for(Isa isa, int lanes);

// Groups of symbols that the kernels of an instruction set have decoded and encoded since the module was loaded. By
// these the tests check that the instruction set which they forced is the one that ran.
struct GroupCounts {
    uint64_t decoded, encoded;
};
GroupCounts group_counts(Isa isa);
void count_groups(Isa isa, GroupCounts more);

}  // namespace sodec::rans
