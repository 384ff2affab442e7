"""Bookkeeping of the graphs by size, on a CPU: nothing is captured here.

pytest tests/test_graphs.py
"""

import copy
import warnings

import numpy as np
import pytest
import torch
from tiny import codec, photo

from sodec.kernels import dispatch
from sodec.models import graphs
from sodec.models.flow import Flow
from sodec.models.graphs import MANY, GraphedDecoder, SizeCache
from sodec.pipeline import torch_engine
from sodec.pipeline.decoder import decode as decode_stream
from sodec.pipeline.torch_engine import TorchEngine
from sodec.pipeline.torch_pixels import in_8_bits
from sodec.pipeline.view import checked_view
from sodec.stream import container


def test_the_cache_is_bounded_and_drops_what_was_unused_longest():
    cache = SizeCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert len(cache) == 2
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == (1, 3)


def test_a_first_decode_and_a_captured_one_use_the_same_kernels(monkeypatch):
    modes = []
    model = codec().model
    capture = lambda decode, inputs: modes.append(dispatch._in_graphs.get()) or decode  # noqa: E731
    decoder = GraphedDecoder(model, in_8_bits, capture=capture)

    def decode(*inputs):
        modes.append(dispatch._in_graphs.get())
        return inputs

    monkeypatch.setattr(decoder, "_decode", decode)
    inputs = torch.zeros(1, 1, 4, 4), torch.tensor([50.0]), torch.zeros(1, 1, 16, 16)
    decoder.decode(*inputs)
    assert modes == [True]
    decoder.decode(*inputs)
    assert modes[:2] == [True, True]
    assert not dispatch._in_graphs.get()


def test_a_size_is_captured_when_met_again_and_one_that_is_not_used_makes_room(monkeypatch):
    captured = []

    def capture(decode, inputs):
        captured.append(tuple(inputs[0].shape[-2:]))
        return decode

    model = codec().model
    decoder = GraphedDecoder(model, in_8_bits, capture=capture)

    def decode(height, width):
        y_hat = torch.randn(1, model.config.y_channels, height, width, dtype=codec().dtype)
        noise = codec().engine.noise(y_hat)
        quality = torch.tensor([50.0])
        with torch.inference_mode():
            full, faithful, pixels = decoder.decode(y_hat, quality, noise)
            assert torch.equal(pixels, in_8_bits(full))
            assert torch.equal(faithful, model.fidelity(y_hat, quality).pixels)
            assert torch.equal(full, Flow(model, y_hat, quality, noise=noise).run().pixels)

    decode(4, 4)
    assert captured == []
    for _ in range(2):
        decode(4, 4)
    assert captured == [(4, 4)]
    monkeypatch.setattr(graphs, "UNUSED", 5)
    decoder.decoders.capacity = 2
    for _ in range(4):
        for width in (4, 5, 6):
            decode(4, width)
    assert captured == [(4, 4), (4, 5)], "of three sizes in turn two are replayed, and none is captured over and over"
    for _ in range(6):
        decode(4, 6)
    assert captured == [(4, 4), (4, 5), (4, 6)]
    assert len(decoder.decoders) == 2
    decode(4, 5)
    decode(4, 4)
    assert len(captured) == 3, "the one that was used longest ago is gone, and comes back once another is not used"


def decoder_of_zeros(monkeypatch, **options):
    """A decoder whose networks are left out, a function that decodes one size in a call, and what was captured."""
    captured = []

    def capture(decode, inputs):
        captured.append(tuple(inputs[0].shape))
        return decode

    decoder = GraphedDecoder(codec().model, in_8_bits, **{"capture": capture, **options})
    monkeypatch.setattr(decoder, "_decode", lambda *inputs: inputs)

    def decode(call, batch=1):
        return decoder.decode(torch.zeros(batch, 1, 4, 4), torch.tensor([50.0]), torch.zeros(batch, 1, 16, 16), call)

    return decoder, decode, captured


def test_a_first_call_captures_only_what_it_meets_often(monkeypatch):
    decoder, decode, captured = decoder_of_zeros(monkeypatch)
    for _ in range(MANY - 1):
        decode("first")
    assert captured == []
    decode("second")
    assert captured == [(1, 1, 4, 4)]
    for number in range(2 * MANY):
        decode("third", batch=2)
        assert len(captured) == 1 + (number + 1 >= MANY)
    assert len(decoder.decoders) == 2


def test_without_memory_for_a_graph_there_is_none(monkeypatch):
    asked = []
    affords = lambda *size: asked.append(size) or size[0] < 3  # noqa: E731
    _, decode, captured = decoder_of_zeros(monkeypatch, affords=affords)
    for call in range(3):
        decode(call, batch=3)
        decode(call, batch=2)
    assert captured == [(2, 1, 4, 4)]
    assert asked == [(3, 4, 4), (2, 4, 4), (3, 4, 4)]


def test_a_capture_that_fails_is_said_once_and_decoding_goes_on(monkeypatch):
    tried = []

    def capture(decode, inputs):
        tried.append(inputs)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")

    _, decode, _ = decoder_of_zeros(monkeypatch, capture=capture)
    decode("first")
    with pytest.warns(UserWarning, match="can't be captured here.*operation not permitted when stream is capturing$"):
        assert len(decode("second")) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in range(3):
            decode(call)
            decode(call, batch=2)
    assert len(tried) == 1


def test_graphs_that_were_given_up_are_captured_anew(monkeypatch):
    decoder, decode, captured = decoder_of_zeros(monkeypatch)
    decode(1)
    decode(2)
    decoder.clear()
    assert len(decoder.decoders) == 0
    decode(3)
    assert len(captured) == 2


def test_graphs_are_on_by_default_where_there_is_cuda(monkeypatch):
    made = []
    monkeypatch.setattr(torch_engine, "load_model", lambda bundle, device, dtype: codec().prepared)
    monkeypatch.setattr(torch_engine, "TorchEngine", lambda prepared, coding, **options: made.append(options))
    monkeypatch.setattr(torch_engine.devices, "check_weights", lambda *arguments, **options: None)
    for device, asked in (("cpu", None), ("cpu", False), ("cuda", None), ("cuda", False), ("cuda", True)):
        monkeypatch.setattr(torch_engine.devices, "resolve_device", lambda name: torch.device(name))
        torch_engine.prepared_engine(codec().bundle, device, "float32", tile=1024, threads=None, cuda_graphs=asked)
    assert [options["cuda_graphs"] for options in made] == [False, False, True, False, True]


@pytest.mark.parametrize("size", [(90, 60), (1100, 90)])
def test_the_encoder_s_networks_are_captured_too_and_write_the_same_bytes(size):
    captured = []

    def capture(function, inputs):
        captured.append(function.__name__)
        return function

    picture = photo(*size)
    made = copy.copy(codec())
    made.engine = copy.copy(codec().engine)
    made.engine.graphed = GraphedDecoder(made.model, in_8_bits, capture=capture)
    options = [{}, {"quality": 20}, {"max_bytes": 1500}]
    for chosen in [*options, *options]:
        assert made.compress(picture, **chosen) == codec().compress(picture, **chosen)
    tiles = -(-size[0] // 1024)
    assert captured.count("analysis") == tiles
    assert captured.count("_symbols") == tiles


class Replaying(TorchEngine):
    """As on a GPU with graphs: what was captured is replayed, and the canvas is a tensor."""

    def canvas(self, height, width):
        return torch.empty((height, width, 3), dtype=torch.uint8)


@pytest.mark.parametrize("size", [(90, 60), (300, 200)])  # of one window, and of several
@pytest.mark.parametrize("view", [{}, {"fidelity": 0.5}, {"mode": "fidelity"}, {"region": (11, 7, 60, 40)},
                                  {"scale": 1 / 2}])  # fmt: skip
def test_graphs_run_from_symbols_to_8_bits(size, view):
    captured = []

    def capture(function, inputs):
        captured.append(function.__name__)
        return function

    engine = copy.copy(codec().engine)
    engine.__class__, engine.tile = Replaying, 128
    stream = container.read(codec().compress(photo(*size)))
    wanted = decode_stream(engine, stream, checked_view(**view)).picture.rgb
    engine.graphed = GraphedDecoder(engine.model, in_8_bits, capture=capture)
    for _ in range(3):
        found = decode_stream(engine.timed(None), stream, checked_view(**view)).picture.rgb
        assert np.array_equal(found, wanted)
    faithful = view.get("mode") == "fidelity" or "scale" in view
    assert set(captured) == ({"_y_hat", "_fidelity"} if faithful else {"features", "_decode"})
