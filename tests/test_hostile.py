"""Inputs that were made or found to hurt: every instruction set must say the same of them, symbols or a typed error.

pytest tests/test_hostile.py

The files are inputs of fuzz/fuzz_rans.cpp: a byte of choices, two bytes for the number of symbols, the payload. The
fuzzer runs them too, under sanitizers and with tables of its own.
"""

from pathlib import Path

import numpy as np
import pytest
from test_coder_variants import VARIANTS, forced

from sodec import entropy
from sodec.entropy import SKIP, Decoder, Tables
from sodec.errors import CorruptStreamError

FILES = sorted((Path(__file__).parent / "hostile").glob("*.bin"))


def tables_of(precision):
    escapes = (np.array(part, np.int32) for part in ([0, 1 << precision] * 2, [0, 2, 4], [-32767, 32767]))
    yield Tables(*escapes, precision)
    yield entropy.gaussian_tables([0.1, 0.3, 1, 10], precision=precision)


def said_of(name, payload, indexes, tables):
    try:
        with forced(name):
            decoder = Decoder(payload)
        read = decoder.read(indexes, tables).tolist()
        decoder.finish()
    except CorruptStreamError as error:
        return str(error)
    return read


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_say_the_same(path):
    data = path.read_bytes()
    count, payload = int.from_bytes(data[1:3], "little") % 2**14, data[3:]
    precision = (payload[0] >> 3 & 15) + 1 if payload else 1
    for tables in tables_of(precision):
        indexes = np.arange(count, dtype=np.uint32).astype(np.uint8) % tables.count
        for every in (1, 3):
            indexes[:: 7 * every] = SKIP
            right = said_of("portable", payload, indexes, tables)
            assert [said_of(name, payload, indexes, tables) for name in VARIANTS] == [right] * len(VARIANTS)
            assert isinstance(right, str) or np.abs(right).max(initial=0) <= 32767
