#include "kernels.h"

namespace sodec::rans {

constexpr uint8_t kSkipIndex = 255;

// Without branches, since SKIP is hard to predict.
size_t compact_portable(const uint8_t* indexes, size_t n, uint8_t* dense) {
    size_t count = 0;
    for (size_t i = 0; i < n; ++i) {
        dense[count] = indexes[i];
        count += indexes[i] != kSkipIndex;
    }
    return count;
}

size_t look_up_rest(const LookUpRun* run, size_t from, uint32_t* ids) {
    const TableView* const tables = run->tables;
    const uint8_t* const indexes = run->indexes;
    const int16_t* const values = run->values;
    size_t count = 0;
    for (size_t i = from; i < run->n; ++i) {
        const TableView table = tables[indexes[i]];
        const uint32_t number = static_cast<uint32_t>(values[i] - table.minimum);
        ids[count] = number < table.escape ? table.first + number : kEscapeId + static_cast<uint32_t>(i);
        count += indexes[i] != kSkipIndex;
    }
    return count;
}

size_t look_up_portable(const LookUpRun* run) { return look_up_rest(run, 0, run->ids); }

void expand_portable(const uint8_t* indexes, size_t n, const int16_t* dense, int16_t* values) {
    size_t used = 0;
    for (size_t i = 0; i < n; ++i) {
        const int coded = indexes[i] != kSkipIndex;
        values[i] = static_cast<int16_t>(dense[used] & -coded);
        used += static_cast<size_t>(coded);
    }
}

}  // namespace sodec::rans
