"""The table that measures each part of the decoder by leaving it out.

pytest tests/test_parts.py
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from evaluating import picture

from sodec.errors import UnsupportedPictureError
from sodec.evaluate import codecs, metrics, parts

# Grey levels of noise that each variant's picture has here.
NOISE = {
    "full": 4, "fidelity": 20, "no_unet": 30, "mean_eps": 28, "no_guidance": 2, "other_guidance": 10, "no_noise": 25,
}  # fmt: skip


@pytest.fixture
def noisy_parts(monkeypatch):
    """A model whose picture is the original plus noise, whose strength depends on the part that is left out."""
    current = ["full"]

    @contextmanager
    def left_out(model, variant, others):
        current[:] = [variant]
        yield
        current[:] = ["full"]

    def flow(model, latents):
        def noisy(variant):
            noise = np.random.default_rng(0).normal(0, NOISE[variant] / 255, latents[0].shape)
            return torch.from_numpy(np.clip(latents[0].numpy() + noise, 0, 1)).float()

        return SimpleNamespace(x=noisy(current[0]), x_f=noisy("fidelity"), guidance=None)

    monkeypatch.setattr(parts, "left_out", left_out)
    monkeypatch.setattr(parts, "_flow", flow)


class StubCodec:
    model = SimpleNamespace(config=SimpleNamespace(noise=4))

    def compress(self, original, quality):
        return bytes([int(quality)]) + bytes(original.shape[:2]) + original.tobytes()

    def latents(self, data):
        height, width = data[1], data[2]
        x = np.frombuffer(data, np.uint8, offset=3).reshape(height, width, 3)
        x = np.pad(x, ((0, -height % 16), (0, -width % 16), (0, 0)))
        y = torch.from_numpy(x / 255).permute(2, 0, 1)[None]
        return y.double(), torch.zeros(1, 1, 1, 1), torch.tensor([float(data[0])])


@pytest.mark.usefixtures("noisy_parts")
def test_parts_table_tells_which_part_earns_its_place():
    pytest.importorskip("stlpips_pytorch")
    chosen, _ = metrics.available(["psnr", "st_lpips"])
    pictures = {"a": picture(0, 70, 75), "b": picture(1, 64, 80)}
    rows = parts.evaluate_parts(StubCodec(), pictures, chosen, (10, 50), progress=False)
    assert [row.variant for row in rows] == list(NOISE) * 2
    psnrs = {row.variant: row.metrics["psnr"] for row in rows[: len(NOISE)]}
    assert psnrs["no_guidance"] > psnrs["full"] > psnrs["other_guidance"] > psnrs["fidelity"] > psnrs["no_noise"]
    text = parts.parts_table(rows)
    assert text.count("full decoder") == 2
    assert parts.advantage(rows, rows[1]) > 15
    found = parts.findings(rows)
    assert len(found) == 2
    assert "quality 10: the full decoder does not beat 'guidance zeroed' on ST-LPIPS" in found[0]


def test_parts_need_another_picture():
    with pytest.raises(UnsupportedPictureError, match="two pictures"):
        parts.evaluate_parts(StubCodec(), {"a": picture()}, [], progress=False)


def test_the_parts_full_decoder_is_the_codec_s_own():
    codec = codecs.SodecCodec([50], weights=tiny.folder())
    pictures = {"a": picture(0, 70, 75), "b": picture(1, 64, 80)}
    chosen, _ = metrics.available(["psnr"])
    rows = parts.evaluate_parts(codec.codec, pictures, chosen, [50], progress=False)
    values = {row.variant: row.metrics["psnr"] for row in rows}
    for variant, mode in (("full", "full"), ("fidelity", "fidelity")):
        same = codecs.SodecCodec([50], weights=tiny.folder(), mode=mode)
        expected = [metrics.psnr(one, same.decode(codec.encode(one, 50))) for one in pictures.values()]
        assert values[variant] == pytest.approx(np.mean(expected), abs=0.05)
    assert values["full"] != values["fidelity"]
