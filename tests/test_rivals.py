"""The codecs that sodec is compared with: common formats, CompressAI's models, and a user's own file.

pytest tests/test_rivals.py
"""

import sys

import numpy as np
import pytest
import torch
from evaluating import picture

from sodec.errors import MissingPackageError, UnknownModelError, WeightsError
from sodec.evaluate import codecs, metrics, run


@pytest.mark.parametrize("name", codecs.RIVALS)
def test_rivals_code_pictures_with_growing_bytes(name):
    try:
        codec = codecs.rival(name)
    except MissingPackageError as error:
        pytest.skip(str(error))
    original = picture()
    sizes, psnrs = [], []
    for setting in codec.settings:
        data = codec.encode(original, setting)
        decoded = codec.decode(data)
        assert decoded.shape == original.shape
        assert decoded.dtype == np.uint8
        sizes.append(len(data))
        psnrs.append(metrics.psnr(original, decoded))
    assert sizes[0] < sizes[-1]
    assert psnrs[0] < psnrs[-1]
    assert psnrs[-1] > 25


def test_codecs_that_do_not_work_here_are_left_out_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    found, left_out = codecs.rivals(["jpeg", "jxl"])
    assert [codec.name for codec in found] == ["jpeg"]
    assert "pip install pillow-jxl-plugin" in left_out["jxl"]
    with pytest.raises(UnknownModelError, match=r"one of avif, webp.*\(got 'bpg'\)"):
        codecs.rivals(["bpg"])


def test_a_codec_in_a_file(tmp_path):
    path = tmp_path / "planes.py"
    functions = [
        "import io, numpy as np",
        "def settings(): return [1, 2]",
        "def encode(picture, setting):",
        "    out = io.BytesIO(); np.save(out, picture[:, :, :int(setting)]); return out.getvalue()",
        "def decode(data):",
        "    planes = np.load(io.BytesIO(data)); return planes[:, :, [0, -1, -1]]",
    ]
    path.write_text("\n".join(functions))
    codec = codecs.rival(str(path))
    assert codec.name == "planes"
    chosen, _ = metrics.available(["psnr"])
    one, two = (run.measure(codec, setting, picture(), "a", chosen) for setting in codec.settings)
    assert (one.bytes, two.bytes) == (128 + 64 * 80, 128 + 2 * 64 * 80)
    assert two.metrics["psnr"] > one.metrics["psnr"]
    path.write_text("\n".join(functions[:4]))
    with pytest.raises(UnknownModelError, match="no function decode"):
        codecs.rival(str(path))
    with pytest.raises(UnknownModelError, match=r"gone\.py can't be run"):
        codecs.rival(str(tmp_path / "gone.py"))


@pytest.fixture(params=["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean"])
def untrained(request, tmp_path):
    """A CompressAI model with random weights and reduced width, and a folder with both forms of its weights."""
    architectures = pytest.importorskip("compressai.zoo.image").model_architectures
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = architectures[request.param](8, 12)
    network.update()
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, tmp_path / f"{request.param}-1.safetensors")
    torch.save(tensors, tmp_path / f"{request.param}-3-7f9eb9da.pth.tar")
    return request.param, tmp_path, network.eval()


@pytest.mark.parametrize("size", [(64, 64), (75, 130), (1, 1)])
def test_compressai_s_models_code_pictures_of_any_size(untrained, size):
    name, folder, network = untrained
    codec = codecs.rival(f"{name}={folder}")
    assert codec.name == name
    assert list(codec.settings) == [1, 3]
    original = picture(0, *size)
    streams = [codec.encode(original, setting) for setting in codec.settings]
    # The same weights in another file, and the quality is told.
    assert streams[0] != streams[1]
    assert streams[0][5:] == streams[1][5:]
    decoded = codec.decode(streams[0])
    assert (decoded.shape, decoded.dtype) == (original.shape, np.uint8)
    padded = np.pad(original, ((0, -size[0] % 64), (0, -size[1] % 64), (0, 0)), "edge")
    with torch.no_grad():
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
        coded = network.compress(x)
        expected = network.decompress(coded["strings"], coded["shape"])["x_hat"][0, :, : size[0], : size[1]]
    assert np.abs(decoded - 255 * expected.permute(1, 2, 0).numpy()).max() <= 0.51


def test_compressai_s_weights_that_can_not_be_had_are_said(tmp_path, monkeypatch):
    zoo = pytest.importorskip("compressai.zoo")

    def unreachable(quality, **options):
        raise OSError("no route to host")

    monkeypatch.setitem(zoo.image_models, "mbt2018-mean", unreachable)
    found, left_out = codecs.rivals(["jpeg", "mbt2018-mean"])
    assert [codec.name for codec in found] == ["jpeg"]
    assert "no route to host" in left_out["mbt2018-mean"]
    assert "mbt2018-mean=FOLDER" in left_out["mbt2018-mean"]
    with pytest.raises(UnknownModelError, match="is not a folder"):
        codecs.rival(f"mbt2018={tmp_path / 'gone'}")
    with pytest.raises(WeightsError, match="has no file such as mbt2018-1"):
        codecs.rival(f"mbt2018={tmp_path}")
    file = tmp_path / "mbt2018-2.safetensors"
    file.write_bytes(b"no tensors here")
    with pytest.raises(WeightsError, match=r"mbt2018-2\.safetensors can't be read"):
        codecs.rival(f"mbt2018={tmp_path}")
    file.unlink()
    torch.save({"other": torch.zeros(1)}, tmp_path / "mbt2018-2.pth")
    with pytest.raises(WeightsError, match="holds no weights of mbt2018"):
        codecs.rival(f"mbt2018={tmp_path}")


def test_a_pickle_of_more_than_tensors_is_not_run(tmp_path):
    pytest.importorskip("compressai")

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"weights": Trap()}, tmp_path / "mbt2018-1.pth")
    with pytest.raises(WeightsError, match="can't be read"):
        codecs.CompressAICodec("mbt2018", tmp_path)
    assert not (tmp_path / "ran").exists()
