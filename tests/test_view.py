"""Regions, previews and blends: the same pixels as the whole picture's, from fewer tiles.

pytest tests/test_view.py
"""

import functools
import tracemalloc

import numpy as np
import pytest
from tiny import codec, photo

import sodec
from sodec.errors import CorruptStreamError, SodecError, ViewError
from sodec.pipeline.tiles import Box
from sodec.stream import container, sections, symbols

WIDTH, HEIGHT = 2100, 1090  # 3 x 2 tiles


@functools.cache
def stream():
    grey = photo(WIDTH, HEIGHT, 1)[..., 0]
    return codec().compress(np.dstack([photo(WIDTH, HEIGHT), grey]), 80)


@functools.cache
def whole(**options):
    return codec().decompress(stream(), output="numpy", **options).astype(int)


REGIONS = [
    (0, 0, 1, 1), (2099, 1089, 1, 1), (0, 0, WIDTH, HEIGHT), (300, 200, 100, 50), (1000, 1000, 100, 90),
    (1023, 1023, 2, 2), (991, 5, 1, 3), (2030, 0, 70, 1090), (5, 1056, 2000, 7),
    (1000, 3, 60, 1000),  # within the ramp of the two parts that this picture is decoded in
]  # fmt: skip


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("mode", ["full", "fidelity"])
def test_a_region_is_the_crop_of_the_whole(region, mode):
    x, y, w, h = region
    part = codec().decompress(stream(), output="numpy", mode=mode, region=region)
    assert part.shape == (h, w, 4)
    assert np.abs(whole(mode=mode)[y : y + h, x : x + w] - part).max() <= 2


@pytest.mark.parametrize(
    ("region", "synthesised", "read"),
    [
        ((300, 200, 100, 50), 1, 4),  # the halo of tile 0 takes the cells of its three neighbours
        ((1040, 100, 900, 100), 2, 6),  # the blend of tile 0 reaches 32 pixels into its neighbour
        ((1056, 100, 900, 100), 1, 6),
        ((2080, 1080, 5, 5), 1, 4),
        ((2079, 1055, 5, 5), 4, 6),
        ((0, 0, WIDTH, HEIGHT), 6, 6),
    ],
)
def test_a_region_decodes_the_tiles_that_reach_into_it(monkeypatch, region, synthesised, read):
    count = {"synthesised": 0, "read": 0}
    synthesise, decode = codec().engine.synthesise_all, symbols.decode

    def counting(name, function):
        def call(*arguments):
            count[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(codec().engine, "tile", 1024)
    monkeypatch.setattr(codec().engine, "synthesise_all", counting("synthesised", synthesise))
    monkeypatch.setattr("sodec.pipeline.source.symbols.decode", counting("read", decode))
    codec().decompress(stream(), region=region)
    assert count == {"synthesised": synthesised, "read": read}


@pytest.mark.parametrize(
    "region",
    [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 5, -1), (2096, 0, 5, 5), (0, 1090, 1, 1), (10**12, 0, 1, 1), (0, 0, 1),
     (0, 0, 1, 1.5), (0, 0, float("nan"), 1), "0,0,1,1", 7],
)  # fmt: skip
def test_regions_outside_the_picture_are_named(region):
    with pytest.raises(ViewError) as error:
        codec().decompress(stream(), region=region)
    told = str(error.value)
    assert repr(region) in told or ",".join(map(str, region)) in told
    assert isinstance(error.value, SodecError)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_preview_is_the_mean_of_the_fidelity_picture(shrink):
    preview = codec().decompress(stream(), output="numpy", scale=1 / shrink)
    assert preview.shape == (-(-HEIGHT // shrink), -(-WIDTH // shrink), 4)
    rows, columns = HEIGHT // shrink, WIDTH // shrink  # whole blocks
    blocks = whole(mode="fidelity")[: rows * shrink, : columns * shrink]
    means = blocks.reshape(rows, shrink, columns, shrink, 4).mean((1, 3))
    assert np.abs(preview[:rows, :columns] - means).max() <= 1.01


def test_the_region_of_a_preview_is_the_crop_of_the_preview():
    preview = codec().decompress(stream(), output="numpy", scale=1 / 4).astype(int)
    part = codec().decompress(stream(), output="numpy", scale=1 / 4, region=(1001, 999, 70, 91))
    assert np.abs(preview[249:273, 250:268] - part).max() <= 1
    assert codec().decompress(codec().compress(photo(3, 1)), scale=1 / 8).size == (1, 1)


def test_fidelity_blends_the_two_pictures():
    full, faithful = whole(), whole(mode="fidelity")
    half = whole(fidelity=0.5)
    assert np.abs(full - faithful).max() > 20
    assert np.abs(half - (full + faithful) / 2).max() <= 1.5
    assert np.array_equal(whole(fidelity=0), full)
    assert np.array_equal(whole(fidelity=1), faithful)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fidelity": 1.5}, "1.5"), ({"fidelity": float("nan")}, "nan"), ({"fidelity": True}, "True"),
        ({"fidelity": 0.5, "mode": "fidelity"}, "0.5"), ({"scale": 1 / 3}, "0.333"), ({"scale": 0}, "got 0"),
        ({"scale": float("nan")}, "nan"), ({"scale": 2}, "got 2"),
    ],
)  # fmt: skip
def test_views_that_are_none_are_named(options, named):
    with pytest.raises(ViewError, match=named):
        codec().decompress(stream(), **options)


def test_progress_runs_to_one():
    for act in (lambda p: codec().compress(photo(2100, 20), progress=p),
                lambda p: codec().decompress(stream(), progress=p)):  # fmt: skip
        told = []
        act(told.append)
        assert told == sorted(told)
        assert len(told) in (3, 2)
        assert told[-1] == 1


@functools.cache
def one_large_tile():
    """A stream of one tile, larger than sodec writes."""
    rgb, engine = photo(WIDTH, HEIGHT), codec().engine
    with engine.running():
        payload = engine.encode(engine.analyse(rgb, Box(0, 0, WIDTH, HEIGHT)), 80)
    return container.write(
        container.Stream(WIDTH, HEIGHT, 80, codec().bundle.fingerprint, (payload,), tile_log2=12, alpha=rgb[..., 0])
    )


@pytest.mark.parametrize("region", REGIONS)
def test_of_a_large_tile_only_the_surroundings_of_a_region_are_dequantised(monkeypatch, region):
    monkeypatch.setattr("sodec.pipeline.source.LARGE", 1 << 16)
    expected = codec().decompress(one_large_tile(), output="numpy", max_tile=4096, region=region).astype(int)
    monkeypatch.undo()
    engine, cells = type(codec().engine), []
    dequantise = engine.dequantise

    def noting(self, z, y, *arguments, **options):
        cells.append(y.shape[-2:])
        return dequantise(self, z, y, *arguments, **options)

    monkeypatch.setattr(engine, "dequantise", noting)
    part = codec().decompress(one_large_tile(), output="numpy", max_tile=4096, region=region)
    assert np.abs(part - expected).max() <= 1
    most = (1024 + 2 * 64) // 16 + 2 * 16 + 3  # of a window, what its values depend on, and the grid of z
    assert max(max(size) for size in cells) <= most


def test_the_neighbours_of_a_lost_large_tile_are_read_whole():
    data = bytearray(one_large_tile())
    data[-20] ^= 1
    with pytest.raises(SodecError):
        codec().decompress(bytes(data), max_tile=4096)
    with pytest.raises(SodecError, match="every tile"):
        codec().decompress(bytes(data), max_tile=4096, on_error="conceal")
    whole_stream = codec().decompress(one_large_tile(), output="numpy", max_tile=4096, on_error="conceal")
    assert whole_stream.shape == (HEIGHT, WIDTH, 4)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(7, 30), slice(99, 100), slice(0, 100)])
@pytest.mark.parametrize("band", [1, 64, 130 * 8, 1 << 20])
@pytest.mark.parametrize("fed", [1, 17, 1 << 16])
def test_alpha_of_a_part_is_inflated_to_its_last_row(monkeypatch, rows, band, fed):
    alpha = np.random.default_rng(0).integers(0, 9, (100, 130)).astype(np.uint8)
    body = sections.pack_alpha(alpha)
    monkeypatch.setattr(sections, "ALPHA_BAND", band)
    monkeypatch.setattr(sections, "INFLATED_AT_ONCE", fed)
    part = sections.unpack_alpha(body, 130, 100, (rows, slice(5, 120)))
    assert np.array_equal(part, alpha[rows, 5:120])
    cut = body[: len(body) // 2]  # holds about half of the rows
    if rows.stop <= 30:
        assert np.array_equal(sections.unpack_alpha(cut, 130, 100, (rows, slice(5, 120))), part)
    else:
        with pytest.raises(CorruptStreamError):
            sections.unpack_alpha(cut, 130, 100, (rows, slice(5, 120)))
    if rows.stop == 100:
        for damaged in (body + b"x", body[:-1], sections.pack_alpha(np.vstack([alpha, alpha]))):
            with pytest.raises(CorruptStreamError, match="alpha section"):
                sections.unpack_alpha(damaged, 130, 100, (rows, slice(None)))


def test_alpha_of_a_region_takes_the_memory_of_the_region():
    alpha = np.broadcast_to(np.arange(8192).astype(np.uint8), (8192, 8192))
    body = sections.pack_alpha(alpha)
    tracemalloc.start()
    part = sections.unpack_alpha(body, 8192, 8192, (slice(8000, 8010), slice(100, 110)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(part, alpha[8000:8010, 100:110])
    assert peak < 8e6, "of 67 MB"


def test_a_stream_is_parsed_once(monkeypatch):
    data, calls = sodec.compress(photo(20, 20)), []
    parse = container.parse
    monkeypatch.setattr(container, "parse", lambda *arguments: calls.append(1) or parse(*arguments))
    for read in (sodec.decompress, sodec.inspect):
        calls.clear()
        read(data)
        assert len(calls) == 1
