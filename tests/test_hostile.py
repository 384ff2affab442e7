"""Hostile inputs, constructed or found by fuzzing: every instruction set must return the same symbols or typed error.

pytest tests/test_hostile.py

The files are inputs of fuzz/fuzz_rans.cpp: a byte of choices, two bytes for the number of symbols, the payload. The
fuzzer runs them too, under sanitizers and with tables of its own. Of the streams that fuzz/fuzz_streams.py alters some
hundreds are tried here.
"""

import random
from pathlib import Path

import numpy as np
import pytest
from test_coder_variants import VARIANTS, forced

from sodec import entropy
from sodec.entropy import SKIP, Decoder, Tables
from sodec.errors import CorruptStreamError, SodecError
from sodec.stream import container

FUZZ = Path(__file__).parents[1] / "fuzz"

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


@pytest.fixture(scope="module")
def fuzz():
    """The module fuzz_streams, and `streams` within it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FUZZ)
        import fuzz_streams

        yield fuzz_streams


def test_altered_streams_whose_checks_are_right_get_past_the_checks(fuzz):
    """Otherwise the fuzzer would never get past the CRC-32C."""
    import streams

    data = (FUZZ.parent / "tests/golden/streams/tiles.sodec").read_bytes()
    assert streams.resealed(data) == data
    said = set()
    for place in range(4, len(data) - 4):
        altered = streams.resealed(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            container.parse(altered)
        except SodecError as error:
            said.add(str(error))
    assert said
    assert not [message for message in said if "CRC-32C" in message or "the check of" in message]


@pytest.mark.parametrize("call", ["inspect", "decompress"])
def test_altered_streams_end_in_an_answer_or_an_error_of_ours(fuzz, call, tmp_path, monkeypatch, capsys):
    if call == "decompress":
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)  # where streams would be left that break something
    maker, called = fuzz.inspector() if call == "inspect" else fuzz.decoder(tmp_path)
    draw = random.Random(27)
    assert fuzz.fuzz(maker, called, seconds=0, count=400, seed=draw.randrange(100)), capsys.readouterr().out
    said = capsys.readouterr().out
    assert "400 streams" in said
    for outcome in ("answered", "CorruptStreamError", "NewerFormatError"):
        assert outcome in said, "what is behind the checks is not reached"


def test_what_the_fuzzer_would_find_is_reported_and_kept(fuzz, tmp_path, monkeypatch, capsys):
    def broken(data, draw):
        raise KeyError(len(data))

    monkeypatch.chdir(tmp_path)
    maker, _ = fuzz.inspector()
    assert not fuzz.fuzz(maker, broken, seconds=0, count=2, seed=1)
    assert "FOUND KeyError" in capsys.readouterr().out
    assert len(list(tmp_path.glob("build/found/*.sodec"))) == 2
