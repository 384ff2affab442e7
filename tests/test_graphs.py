"""Bookkeeping of the graphs by size, on a CPU: nothing is captured here.

pytest tests/test_graphs.py
"""

import torch
from tiny import codec

from sodec.kernels import dispatch
from sodec.models.flow import Flow
from sodec.models.graphs import CAPACITY, GraphedDecoder, SizeCache


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
    decoder = GraphedDecoder(model, lambda decode, inputs: modes.append(dispatch._in_graphs.get()) or decode)
    monkeypatch.setattr(decoder, "decode", lambda *inputs: modes.append(dispatch._in_graphs.get()) or inputs)
    inputs = torch.zeros(1, 1, 4, 4), torch.tensor([50.0]), torch.zeros(1, 1, 16, 16)
    decoder(*inputs)
    assert modes == [True]
    decoder(*inputs)
    assert modes[:2] == [True, True]
    assert not dispatch._in_graphs.get()


def test_a_size_is_captured_when_met_again_and_the_oldest_goes():
    captured = []

    def capture(decode, inputs):
        captured.append(tuple(inputs[0].shape[-2:]))
        return decode

    model = codec().model
    decoder = GraphedDecoder(model, capture)

    def decode(height, width):
        y_hat = torch.randn(1, model.config.y_channels, height, width, dtype=codec().dtype)
        noise = codec().engine.noise(y_hat)
        quality = torch.tensor([50.0])
        with torch.inference_mode():
            full, faithful = decoder(y_hat, quality, noise)
            assert torch.equal(faithful, model.fidelity(y_hat, quality).pixels)
            assert torch.equal(full, Flow(model, y_hat, quality, noise=noise).run().pixels)

    decode(4, 4)
    assert captured == []
    for _ in range(2):
        decode(4, 4)
    assert captured == [(4, 4)]
    for width in range(5, 5 + CAPACITY):
        for _ in range(3):
            decode(4, width)
    assert len(decoder.graphs) == CAPACITY
    assert captured == [(4, 4), *((4, width) for width in range(5, 5 + CAPACITY))]
    decode(4, 4)
    assert captured[-1] == (4, 4), "it was dropped, and is captured again at once"
