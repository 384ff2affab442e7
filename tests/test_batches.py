"""Several pictures at once: batches of windows, what they equal, and what happens where memory or a stream fails.

pytest tests/test_batches.py
"""

import dataclasses
import gc
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import codec, folder, noted_tasks, photo

import sodec
from sodec.errors import CorruptStreamError, DeviceError, UnsupportedPictureError
from sodec.models.graphs import GraphedDecoder
from sodec.pipeline import fitting, torch_engine
from sodec.pipeline.torch_engine import TorchEngine
from sodec.pipeline.torch_pixels import in_8_bits

WINDOW = 128 * 128
# Equal sizes, others of the same cells, several windows, one alone.
SIZES = [(90, 60), (300, 200), (90, 60), (96, 64), (40, 30), (300, 200), (90, 60)]


class OnDevice(TorchEngine):
    """As on a GPU: the canvas is a tensor, and windows are computed in batches."""

    def canvas(self, height, width):
        return torch.empty((height, width, 3), dtype=torch.uint8)


def on_device(dtype="float32", pixels=8 * WINDOW):
    """A codec as on a GPU, and the sizes of the batches that it computes."""
    made = sodec.Codec(weights=folder(), dtype=dtype, tile=128)
    made.engine.__class__ = OnDevice
    made.engine.batch_pixels = pixels
    sizes = []
    synthesise = made.engine.synthesise_all

    def noted(windows):
        planes = synthesise(windows)
        sizes.append(len(windows))
        return planes

    made.engine.synthesise_all = noted
    return made, sizes


def streams():
    pictures = [photo(*size, seed=number) for number, size in enumerate(SIZES)]
    pictures[2] = pictures[2][..., 0]  # grey
    pictures[5] = np.dstack([pictures[5], pictures[5][..., 1]])  # with alpha
    return [codec().compress(picture, quality=20 + 10 * number) for number, picture in enumerate(pictures)]


VIEWS = [{}, {"mode": "fidelity"}, {"fidelity": 0.5}, {"scale": 1 / 4}, {"region": (3, 5, 30, 20)}, {"noise": 0.5}]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1), ("bfloat16", 6)])
def test_pictures_of_a_batch_are_those_that_are_decoded_alone(view, dtype, most):
    batching, sizes = on_device(dtype)
    together = batching.decompress(streams(), output="numpy", **view)
    assert max(sizes) > 1
    alone = [batching.decompress(stream, output="numpy", **view) for stream in streams()]
    for one, other in zip(together, alone, strict=True):
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= most


def test_batches_are_of_few_sizes_and_as_large_as_they_may_be():
    batching, sizes = on_device()
    few = [codec().compress(photo(90, 60, seed)) for seed in range(7)]
    batching.decompress(few)
    assert sizes == [4, 2, 1]
    sizes.clear()
    batching.engine.batch_pixels = 2 * 96 * 64
    batching.decompress(few)
    assert sizes == [2, 2, 2, 1], "pictures are begun a whole batch at a time"
    sizes.clear()
    batching.engine.batch_pixels = 100 * WINDOW
    batching.decompress(codec().compress(photo(1024, 128)))  # inner windows of one row have one size
    assert sizes == [1, 4, 2, 1]


def test_on_a_cpu_a_list_is_exactly_its_pictures():
    together = codec().decompress(streams(), output="numpy")
    for stream, picture in zip(streams(), together, strict=True):
        assert np.array_equal(picture, codec().decompress(stream, output="numpy"))


def test_graphs_serve_batches_and_several_windows():
    batching, _ = on_device()
    captured = []

    def capture(function, inputs):
        captured.append((function.__name__, len(inputs[0])))
        return function

    batching.engine.graphed = GraphedDecoder(batching.model, in_8_bits, capture=capture)
    wanted = [batching.decompress(stream, output="numpy") for stream in streams()]
    for _ in range(2):
        together = batching.decompress(streams(), output="numpy")
        for one, other in zip(together, wanted, strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1
    assert {count for name, count in captured if name == "_decode"} >= {1, 2, 4}
    assert {count for name, count in captured if name == "features"} >= {2, 4}


def short_of_memory(engine, most):
    """Makes the engine's memory suffice for `most` windows."""
    synthesise = engine.synthesise_all

    def limited(windows):
        if len(windows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return synthesise(windows)

    engine.synthesise_all = limited


def test_a_batch_that_is_too_large_for_the_memory_is_halved_and_that_is_said_once():
    batching, sizes = on_device(pixels=16 * WINDOW)
    few = [codec().compress(photo(90, 60, seed)) for seed in range(8)]
    wanted = batching.decompress(few, output="numpy")
    assert sizes == [8]
    sizes.clear()
    short_of_memory(batching.engine, 2)
    with pytest.warns(UserWarning, match="memory does not suffice for batches") as warned:
        found = batching.decompress(few, output="numpy")
    assert len(warned) == 1
    assert sizes == [2, 2, 2, 2]
    assert all(np.abs(one.astype(int) - other).max() <= 1 for one, other in zip(found, wanted, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batching.decompress(few)  # remembered


def test_too_little_memory_for_one_window_is_an_error_once_graphs_are_given_up():
    batching, _ = on_device()
    stream = codec().compress(photo(90, 60))
    batching.engine.graphed = GraphedDecoder(batching.model, in_8_bits, capture=lambda function, inputs: function)
    for _ in range(2):
        batching.decompress(stream)
    assert batching.engine.holds_memory()
    synthesise = batching.engine.synthesise_all

    def while_graphs_are_held(windows):
        if batching.engine.holds_memory():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return synthesise(windows)

    batching.engine.synthesise_all = while_graphs_are_held
    batching.decompress(stream)
    short_of_memory(batching.engine, 0)
    with pytest.raises(DeviceError, match="memory does not suffice"):
        batching.decompress(stream)


def test_batches_take_half_of_the_free_memory_at_most(monkeypatch):
    batching, sizes = on_device(pixels=64 * WINDOW)
    few = [codec().compress(photo(90, 60, seed)) for seed in range(8)]
    one = fitting.decoding_bytes(batching.model.config, batching.dtype, 96, 64)
    asked = []
    monkeypatch.setattr(torch_engine.devices, "available", lambda device: asked.append(1) or 2 * 5 * one)
    for _ in range(2):
        batching.decompress(few)
    assert sizes == [4, 4, 4, 4]
    assert len(asked) <= 2 + 2 * len(few), "each picture is checked, as always, and the size of batches found once"


def results_held(engine, pictures, monkeypatch):
    """Which of so many pictures that are held stay in pinned memory, where 100 bytes may."""
    monkeypatch.setattr(torch_engine, "PINNED", 100)
    monkeypatch.setattr(engine, "on_cuda", True)
    hosts = [torch.zeros(40, dtype=torch.uint8) for _ in range(pictures)]
    found = [engine.fetched((host, SimpleNamespace(synchronize=lambda: None))) for host in hosts]
    return [array.ctypes.data == host.data_ptr() for array, host in zip(found, hosts, strict=True)]


def test_results_leave_pinned_memory_where_callers_hold_many(monkeypatch):
    engine = on_device()[0].engine
    assert results_held(engine, 4, monkeypatch) == [True, True, False, False]
    gc.collect()
    assert results_held(engine, 1, monkeypatch) == [True], "what is held no more counts no more"


@pytest.mark.parametrize("kind", ["cpu", "device"])
def test_a_bad_stream_of_several_is_named_by_its_index(kind, monkeypatch):
    used = codec() if kind == "cpu" else on_device()[0]
    good, tasks = streams(), noted_tasks(monkeypatch)
    cut = [*good[:3], good[3][: len(good[3]) // 2], *good[4:]]
    with pytest.raises(CorruptStreamError, match=r"^streams\[3\]: "):
        used.decompress(cut)
    with pytest.raises(TypeError, match=r"^streams\[1\]: a stream must be"):
        used.decompress([good[0], 7])
    with pytest.raises(UnsupportedPictureError, match=r"^pictures\[1\]: an array must be uint8"):
        used.compress([photo(20, 20), photo(20, 20).astype(float)])
    assert all(task.done() for task in tasks)


def test_damage_beyond_the_header_names_the_index_too():
    good = streams()
    parsed = [codec()._read(stream) for stream in good]
    parsed[4] = dataclasses.replace(parsed[4], payloads=(b"\0",))
    with pytest.raises(CorruptStreamError, match=r"^streams\[4\]: "):
        on_device()[0].decompress(parsed)


def test_nothing_is_decoded_before_all_headers_are_read():
    batching, sizes = on_device()
    with pytest.raises(CorruptStreamError):
        batching.decompress([*streams(), b"no stream"])
    assert sizes == []


@pytest.mark.parametrize("kind", ["cpu", "device"])
def test_progress_is_that_of_all_pictures(kind):
    used = codec() if kind == "cpu" else on_device()[0]
    seen = []
    used.decompress(streams(), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] > 0
    assert seen[-1] == 1
    assert seen.count(1) == 1


def test_lists_of_none_and_of_one():
    assert codec().decompress([]) == []
    (one,) = codec().decompress((streams()[0],))
    assert one.size == SIZES[0]


def test_the_function_takes_lists_too():
    pictures = [photo(48, 32, seed) for seed in range(2)]
    data = sodec.compress(pictures, engine="torch", quality=30)
    together = sodec.decompress(data, engine="torch", output="numpy")
    for one, stream in zip(together, data, strict=True):
        assert np.array_equal(one, sodec.decompress(stream, engine="torch", output="numpy"))
    assert sodec.decompress([]) == []
    for bad in (b"no stream", data[1][:-3]):
        with pytest.raises(CorruptStreamError, match=r"^streams\[1\]: "):
            sodec.decompress([data[0], bad], engine="torch")
