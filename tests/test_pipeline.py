"""The pipeline between streams and engines: it knows no PyTorch, asks for memory once a picture, and reads ahead.

pytest tests/test_pipeline.py
"""

import copy
import dataclasses
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import torch
from tiny import codec, noted_tasks, photo

from sodec.errors import CorruptStreamError
from sodec.models.noise import place_noise
from sodec.picture import Picture
from sodec.pipeline.decoder import decode
from sodec.pipeline.encoder import encode
from sodec.pipeline.engine import NOISES, Engine
from sodec.pipeline.source import TileSource
from sodec.pipeline.torch_engine import TorchEngine
from sodec.pipeline.view import checked_view
from sodec.stream import container

SIZE = 300, 280  # with tiles of synthesis of 128 pixels: 3 x 3


def engine_of(kind=TorchEngine):
    """The tiny model's engine with small tiles of synthesis, so that a small picture has many ramps."""
    engine = copy.copy(codec().engine)
    engine.__class__ = kind
    engine.tile = 128
    return engine


class OnDevice(TorchEngine):
    """As on a GPU: the canvas is a tensor, and pixels are rounded by PyTorch."""

    def canvas(self, height, width):
        return torch.empty((height, width, 3), dtype=torch.uint8)


@pytest.mark.parametrize(
    "view", [{}, {"mode": "fidelity"}, {"scale": 1 / 4}, {"region": (97, 95, 66, 101)}, {"fidelity": 0.3}]
)
@pytest.mark.parametrize("grey", [False, True])
def test_pixels_rounded_on_a_device_are_those_of_the_host(view, grey):
    picture = photo(*SIZE)[..., 0] if grey else photo(*SIZE)
    stream = container.read(codec().compress(picture))
    host, device = (decode(engine_of(kind), stream, checked_view(**view)).picture for kind in (TorchEngine, OnDevice))
    assert host.grey == grey
    assert np.ptp(host.rgb) > 10
    difference = np.abs(host.rgb.astype(int) - device.rgb)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02  # means of bfloat16 often end at a half


def test_ramps_are_straight_and_add_up_to_one():
    """Windows of plain colours: between two of them the picture runs in a line, also where four meet."""
    stream = container.read(codec().compress(photo(*SIZE)))
    engine, made = engine_of(), []
    synthesise = engine.synthesise_all

    def plain(windows):
        (planes,) = synthesise(windows)
        made.append(len(made) / 10)
        return [planes._replace(values=torch.full_like(planes.values, made[-1] - planes.offset))]

    engine.synthesise_all = plain
    rgb = decode(engine, stream, checked_view()).picture.rgb.astype(float)[..., 1]
    middle = np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5], [0.6, 0.7, 0.8]]) * 255
    for row in range(2):
        for column in range(2):
            top, left = 128 * row + 96, 128 * column + 96  # where the ramps of four windows begin
            down, across = np.mgrid[:64, :64] + 0.5
            down, across = down / 64, across / 64
            corners = middle[row : row + 2, column : column + 2]
            wanted = (1 - down) * ((1 - across) * corners[0, 0] + across * corners[0, 1])
            wanted += down * ((1 - across) * corners[1, 0] + across * corners[1, 1])
            found = rgb[top : top + 64, left : left + 64]
            assert np.abs(found - wanted[: found.shape[0], : found.shape[1]]).max() < 1
    assert (rgb[:96, :96] == 0).all()
    assert (rgb[192:224, 192:224] == round(middle[1, 1])).all()


def test_memory_is_asked_for_once_for_the_largest_window(monkeypatch):
    stream = container.read(codec().compress(photo(900, 200)))
    engine, asked = engine_of(), []
    monkeypatch.setattr(engine, "check", lambda height, width, beside: asked.append((height, width)))
    decode(engine, stream, checked_view())
    assert asked == [(192, 256)]


def test_noise_of_a_window_is_kept_and_that_of_few():
    engine, y_hat = engine_of(), torch.zeros(1, 8, 3, 5)
    engine._noises = {}
    engine.dtype = torch.float32
    first = engine.noise(y_hat, 1.0, (64, 128))
    assert np.array_equal(first[0].numpy(), place_noise(engine.noise_channels, 12, 20, 16, 32))
    assert engine.noise(y_hat, 1.0, (64, 128)) is first
    assert torch.equal(engine.noise(y_hat, 0.5, (64, 128)), first * 0.5)
    for row in range(40):
        engine.noise(y_hat, 1.0, (row * 16, 0))
    assert len(engine._noises) <= NOISES


def test_symbols_of_the_next_row_are_read_while_the_device_works(monkeypatch):
    stream = container.read(codec().compress(photo(60, 2500)))
    begun, engine = [], engine_of()
    engine.tile = 1024
    begin, synthesise = TileSource.begin, engine.synthesise_all

    def noted(self, windows):
        windows = list(windows)
        begun.extend(window.top for window in windows)
        begin(self, windows)

    monkeypatch.setattr(TileSource, "begin", noted)
    seen = []
    engine.synthesise_all = lambda windows: seen.append(max(begun)) or synthesise(windows)
    decode(engine, stream, checked_view())
    assert seen == [960, 1984, 1984]


def test_damage_that_is_found_ahead_is_raised_and_nothing_goes_on(monkeypatch):
    stream = container.read(codec().compress(photo(1100, 1050)))
    payloads = (*stream.payloads[:3], stream.payloads[3][:-4])
    tasks = noted_tasks(monkeypatch)
    with pytest.raises(CorruptStreamError):
        decode(engine_of(), dataclasses.replace(stream, payloads=payloads), checked_view())
    assert tasks
    assert all(task.done() for task in tasks)


def test_the_device_gets_the_next_tile_before_one_is_waited_for_and_threads_code(monkeypatch):
    picture = photo(2100, 1100)
    wanted, steps, lock = codec().compress(picture), [], threading.Lock()
    engine = engine_of()
    engine.coders = 3

    def noted(name, method, *arguments):
        with lock:
            steps.append((name, threading.current_thread() is threading.main_thread()))
        return method(*arguments)

    for name in ("begin_analysis", "analysed", "encode"):
        monkeypatch.setattr(engine, name, partial(noted, name, getattr(engine, name)))
    tasks = noted_tasks(monkeypatch)
    found = encode(engine, codec().bundle.fingerprint, Picture(picture), 50)
    assert found == wanted
    assert len(tasks) == 6
    here = [name for name, main in steps if main]
    assert here == ["begin_analysis", "begin_analysis", *["analysed", "begin_analysis"] * 4, *["analysed"] * 2]
    assert [name for name, main in steps if not main] == ["encode"] * 6


def test_an_error_of_a_thread_that_codes_ends_all(monkeypatch):
    engine, tasks = engine_of(), noted_tasks(monkeypatch)
    engine.coders = 2

    def fail(*arguments):
        raise CorruptStreamError("of a thread")

    monkeypatch.setattr(engine, "encode", fail)
    with pytest.raises(CorruptStreamError, match="of a thread"):
        encode(engine, codec().bundle.fingerprint, Picture(photo(2100, 1100)), 50)
    assert all(task.done() for task in tasks)


def test_the_pipeline_imports_no_torch(tmp_path):
    names = "decoder, encoder, engine, rate, source, tiles, view"
    script = f"import sys; sys.modules['torch'] = None\nfrom sodec.pipeline import {names}"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert Engine.__abstractmethods__
