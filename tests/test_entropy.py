"""The entropy coder: symbols are decoded exactly from few bytes; all other bytes are refused by a typed error.

pytest tests/test_entropy.py
"""

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sodec import entropy
from sodec.entropy import SKIP, Decoder, Tables, decode, encode, encode_sections
from sodec.errors import CorruptStreamError, InvalidTableError, SodecError
from sodec.stream import container, info

LANES = [1, 2, 4, 8, 16, 32, 64]
SCALES = [0.12 * (64 / 0.12) ** (i / 63) for i in range(64)]  # those of the shipped model
GAUSSIANS = entropy.gaussian_tables(SCALES)


def gaussian_section(n, seed=0, low=0, high=64, skipped=0.0):
    """Symbols drawn from the tables' own Gaussians."""
    rng = np.random.default_rng(seed)
    indexes = rng.integers(low, high, n).astype(np.uint8)
    symbols = np.rint(rng.normal(size=n) * np.array(SCALES)[indexes]).astype(np.int16)
    gone = rng.random(n) < skipped
    indexes[gone], symbols[gone] = SKIP, 0
    return symbols, indexes, GAUSSIANS


def one_table(frequencies, minimum=0, precision=4):
    cumulative = np.cumsum([0, *frequencies]).astype(np.int32)
    return Tables(cumulative, np.array([0, len(cumulative)], np.int32), np.array([minimum], np.int32), precision)


@st.composite
def tables_of(draw, precision):
    rows, minimums = [], []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, min(2**precision - 1, 20)))
        row = np.array(draw(st.lists(st.floats(0, 1), min_size=size, max_size=size)), dtype=np.float64)
        rows.append(row / max(row.sum(), 1) * draw(st.floats(0, 1)))
        minimums.append(draw(st.one_of(st.integers(-10, 10), st.integers(-32767, 32767 - size))))
    return entropy.tables_from_probabilities(rows, minimums, precision=precision)


@st.composite
def section_of(draw, tables):
    n = draw(st.integers(0, 80))
    indexes = np.array(draw(st.lists(st.sampled_from([*range(tables.count), SKIP]), min_size=n, max_size=n)), np.uint8)
    values = st.one_of(st.integers(-3, 3), st.integers(-32767, 32767), st.sampled_from([-32767, 32767]))
    symbols = np.array(draw(st.lists(values, min_size=n, max_size=n)), np.int16)
    symbols[indexes == SKIP] = 0
    return symbols, indexes, tables


@st.composite
def payload_sections(draw):
    precision = draw(st.integers(1, 16))
    return [draw(section_of(draw(tables_of(precision)))) for _ in range(draw(st.integers(1, 3)))]


@settings(max_examples=300, deadline=None)
@given(sections=payload_sections(), lanes=st.sampled_from([0, *LANES]))
def test_any_symbols_of_any_tables_are_read_back(sections, lanes):
    decoder = Decoder(encode_sections(sections, lanes=lanes))
    for symbols, indexes, tables in sections:
        read = decoder.read(indexes, tables)
        assert read.dtype == np.int16
        np.testing.assert_array_equal(read, symbols)
    decoder.finish()


@pytest.mark.parametrize("lanes", [0, *LANES])
@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 10_007])
def test_round_trip(n, lanes):
    symbols, indexes, tables = gaussian_section(n, seed=n, skipped=0.3)
    data = encode(symbols, indexes, tables, lanes=lanes)
    assert entropy.payload_info(data)[:2] == (lanes or entropy.payload_info(data)[0], entropy.PRECISION)
    np.testing.assert_array_equal(decode(data, indexes, tables), symbols)


def test_arrays_keep_their_shape_and_need_not_be_contiguous():
    symbols, indexes, tables = gaussian_section(5 * 7 * 3)
    symbols, indexes = symbols.reshape(5, 7, 3), indexes.reshape(5, 7, 3)
    data = encode(symbols.transpose(2, 0, 1), indexes.transpose(2, 0, 1), tables)
    assert data == encode(np.ascontiguousarray(symbols.transpose(2, 0, 1)), indexes.transpose(2, 0, 1).copy(), tables)
    np.testing.assert_array_equal(decode(data, indexes.transpose(2, 0, 1), tables), symbols.transpose(2, 0, 1))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("minimum", [-32767, -1, 0, 32766])
def test_every_escaped_value_is_read_back(lanes, minimum):
    tables = one_table([15, 1], minimum)
    symbols = np.arange(-32767, 32768, dtype=np.int16)[:: 1 if lanes == 64 else 97]
    indexes = np.zeros(symbols.shape, np.uint8)
    np.testing.assert_array_equal(decode(encode(symbols, indexes, tables, lanes=lanes), indexes, tables), symbols)


def test_a_table_of_nothing_but_the_escape():
    tables = one_table([16])
    symbols, indexes = np.array([0, -32767, 32767, 1, -1], np.int16), np.zeros(5, np.uint8)
    np.testing.assert_array_equal(decode(encode(symbols, indexes, tables), indexes, tables), symbols)


def test_skipped_symbols_cost_nothing():
    symbols, indexes, tables = gaussian_section(1000, low=20)
    sparse, where = np.zeros(5000, np.int16), np.full(5000, SKIP, np.uint8)
    sparse[::5], where[::5] = symbols, indexes
    assert encode(sparse, where, tables) == encode(symbols, indexes, tables)
    assert len(encode(sparse * 0, np.full(5000, SKIP, np.uint8), tables)) == 2


def test_the_second_section_costs_no_states():
    whole = gaussian_section(4000, seed=1)
    # Lanes begin again at the first with each section, so the cut is at a multiple of them.
    halves = [(whole[0][:1504], whole[1][:1504], whole[2]), (whole[0][1504:], whole[1][1504:], whole[2])]
    assert encode_sections(halves, lanes=8) == encode(*whole, lanes=8)


def bits_of(symbols, indexes):
    """Bits of the symbols at the exact probabilities of the rounded Gaussians."""
    coded = indexes != SKIP
    at = np.abs(symbols[coded].astype(float))
    unit = np.array(SCALES)[indexes[coded]] * math.sqrt(2)
    erfc = np.vectorize(math.erfc)
    return -np.log2((erfc((at - 0.5) / unit) - erfc((at + 0.5) / unit)) / 2).sum()


@pytest.mark.parametrize(
    ("n", "low", "high", "skipped"),
    [(350_000, 2, 5, 0.0), (350_000, 4, 30, 0.985), (3_500, 0, 64, 0.0), (40, 10, 40, 0.0)],
)
def test_the_size_is_within_a_percent_and_five_bytes_of_the_entropy(n, low, high, skipped):
    symbols, indexes, tables = gaussian_section(n, 3, low, high, skipped)
    ideal = bits_of(symbols, indexes) / 8
    data = encode(symbols, indexes, tables)
    assert len(data) <= 1.01 * ideal + 5
    if n == 350_000:  # the case that matters: a picture of about 1.5 KB at 0.035 bit per symbol
        assert 1000 < ideal < 2500
        assert 0.02 < 8 * ideal / n < 0.06


def test_payload_info_and_position_add_up_to_the_whole_payload():
    z, y = gaussian_section(300, 1, 10, 40), gaussian_section(3000, 2, 0, 40)
    for lanes in LANES:
        data = encode_sections([z, y], lanes=lanes)
        found_lanes, precision, state_bytes = entropy.payload_info(data)
        assert (found_lanes, precision) == (lanes, entropy.PRECISION)
        decoder = Decoder(data)
        assert decoder.position == state_bytes >= 2
        decoder.read(z[1], z[2])
        assert state_bytes <= decoder.position < len(data)
        decoder.read(y[1], y[2])
        assert decoder.position == len(data)
        decoder.finish()


def test_inspect_tells_z_y_and_states_apart():
    sections = [(gaussian_section(60, tile, 10, 40), gaussian_section(900, tile + 9, 0, 40)) for tile in range(2)]
    payloads = tuple(encode_sections(pair, lanes=4) for pair in sections)
    data = container.write(container.Stream(1025, 3, 50, b"abc", payloads))

    def z_end(payload, width, height):
        assert height == 3
        number = {1024: 0, 1: 1}[width]
        decoder = Decoder(payload)
        decoder.read(*sections[number][0][1:])
        return decoder.position

    parsed = container.parse(data)
    told, untold = info.described(parsed, z_end=z_end), info.described(parsed)
    assert told.lanes == (4, 4)
    assert told.bytes["lane states"] == sum(entropy.payload_info(payload)[2] for payload in payloads)
    assert told.bytes["z"] > 0
    assert told.bytes["z"] + told.bytes["y"] == untold.bytes["symbols"]
    for sizes in (told.bytes, untold.bytes):
        assert sum(sizes.values()) - sizes["total"] == sizes["total"] == len(data)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"symbols": np.zeros(3, np.int32)}, TypeError, "symbols are int32, not int16"),
        ({"symbols": [0, 0, 0]}, TypeError, "symbols are a list"),
        ({"indexes": np.zeros(3, np.int64)}, TypeError, "indexes are int64, not uint8"),
        ({"indexes": np.zeros((3, 1), np.uint8)}, ValueError, r"\(3,\), indexes \(3, 1\)"),
        ({"symbols": np.array([0, 1, -32768], np.int16)}, ValueError, "-32768 at position 2"),
        ({"indexes": np.array([0, 1, 0], np.uint8)}, InvalidTableError, "index 1 at position 1"),
        ({"indexes": np.array([0, 0, SKIP], np.uint8)}, ValueError, "symbol 2 at position 2 is skipped"),
        ({"tables": "tables"}, TypeError, "tables are a str"),
        ({"lanes": 3}, ValueError, "lanes is 3"),
        ({"lanes": 128}, ValueError, "lanes is 128"),
        ({"lanes": -1}, ValueError, "lanes is -1"),
        ({"lanes": 1.5}, TypeError, "incompatible"),
    ],
)
def test_what_cannot_be_encoded_is_named(changes, error, message):
    arguments = {
        "symbols": np.array([0, 1, 2], np.int16),
        "indexes": np.zeros(3, np.uint8),
        "tables": one_table([9, 7]),
    } | changes
    with pytest.raises(error, match=message):
        encode(**arguments)


def test_sections_must_agree_in_precision_and_exist():
    empty = np.zeros(0, np.int16), np.zeros(0, np.uint8)
    with pytest.raises(InvalidTableError, match="section 1 has tables of 3 bits, section 0 of 4"):
        encode_sections([(*empty, one_table([16])), (*empty, one_table([8], precision=3))])
    with pytest.raises(ValueError, match="no sections"):
        encode_sections([])
    with pytest.raises(TypeError, match="section 1: symbols are uint8"):
        encode_sections([(*empty, one_table([16])), (empty[1], empty[1], one_table([16]))])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "payload is empty"),
        (b"\xf8\x00", "header byte is 248"),
        (b"\x7f\x00", "header byte is 127"),
        (b"\x70", "ends within its lane states"),
        (b"\x73\x00", "ends within its lane states"),
        (b"\x70\x01", "bits after the lane states are not zero"),
        (b"\x70\x00\x00", "half a word"),
        (b"\x18\x00", "payload has 4 bits of precision, its tables have 15"),
        (b"\x70\x00\x00\x00", "2 bytes of the payload are left over"),
        (b"\x70\x08", "lane 0 does not end where encoding started: state 2"),
    ],
)
def test_broken_payloads_are_named(data, message):
    with pytest.raises(CorruptStreamError, match=message):
        decode(data, np.zeros(0, np.uint8), GAUSSIANS)


def test_a_payload_of_several_lanes_that_ends_early_is_refused():
    symbols, indexes, tables = gaussian_section(200, low=30)
    data = encode(symbols, indexes, tables, lanes=4)
    with pytest.raises(CorruptStreamError, match="ends before its symbols"):
        decode(data[:-4], indexes, tables)


def test_an_escaped_value_out_of_range_is_refused():
    # One lane, 1 bit, only the escape: a state of 32 ones, read as an escape with 16 ones and 16 lower bits.
    tables = one_table([2], 32767, precision=1)
    with pytest.raises(CorruptStreamError, match="has the value"):
        decode(bytes([0, 0xFF, 0xFF, 0xFF, 0xFF, 0xF0]), np.zeros(1, np.uint8), tables)


def test_a_decoder_that_failed_reads_nothing_more():
    decoder = Decoder(encode(*gaussian_section(100)))
    with pytest.raises(InvalidTableError, match="index 64 at position 0"):
        decoder.read(np.array([64], np.uint8), GAUSSIANS)
    with pytest.raises(CorruptStreamError, match="failed before"):
        decoder.read(np.array([1], np.uint8), GAUSSIANS)
    with pytest.raises(CorruptStreamError, match="failed before"):
        decoder.finish()


def test_only_contiguous_bytes_are_read():
    data = encode(*gaussian_section(100))
    for same in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        assert entropy.payload_info(same) == entropy.payload_info(data)
    for other in (memoryview(data)[::2], np.zeros(4, np.int16)):
        with pytest.raises(ValueError, match="contiguous run of bytes"):
            Decoder(other)
    with pytest.raises(TypeError):
        Decoder("text")


def test_a_decoder_keeps_its_bytes_alive():
    symbols, indexes, tables = gaussian_section(100)
    data = bytearray(encode(symbols, indexes, tables))
    decoder = Decoder(data)
    with pytest.raises(BufferError):
        data.clear()
    np.testing.assert_array_equal(decoder.read(indexes, tables), symbols)


PAYLOADS = {lanes: (encode(*gaussian_section(300, 1, 0, 64, 0.2), lanes=lanes)) for lanes in LANES}


@settings(max_examples=400, deadline=None)
@given(data=st.data(), lanes=st.sampled_from(LANES))
def test_altered_or_truncated_payloads_give_symbols_or_our_error(data, lanes):
    symbols, indexes, tables = gaussian_section(300, 1, 0, 64, 0.2)
    altered = bytearray(PAYLOADS[lanes])
    for _ in range(data.draw(st.integers(0, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    altered = altered[: data.draw(st.integers(0, len(altered)))]
    try:
        read = decode(altered, indexes, tables)
    except CorruptStreamError:
        return
    assert read.shape == symbols.shape
    assert np.abs(read.astype(int)).max() <= 32767


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 500), st.integers(1, 16))
def test_any_bytes_give_symbols_or_our_error(data, n, precision):
    tables = entropy.gaussian_tables([0.3, 10], precision=precision)
    for header in (b"", bytes([(precision - 1) << 3]), bytes([(precision - 1) << 3 | 2])):
        try:
            decode(header + data, np.arange(n, dtype=np.uint8) % 2, tables)
        except CorruptStreamError:
            pass
        except SodecError as error:  # pragma: no cover
            pytest.fail(f"{type(error).__name__}: {error}")


def test_threads_share_tables_and_decode_at_once():
    symbols, indexes, tables = gaussian_section(100_000)
    data = encode(symbols, indexes, tables)
    right = []

    def work():
        right.append(np.array_equal(decode(data, indexes, tables), symbols))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4


def test_the_coder_does_not_import_torch(tmp_path):
    code = "import sys, sodec.entropy, sodec.stream.container; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0
