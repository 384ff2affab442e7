"""Memory: decoding that would not fit is refused before it starts, and the error names a smaller tile that fits.

pytest tests/test_memory.py
"""

import io
import tempfile
import weakref

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from tiny import codec, folder, photo
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import sodec
from sodec import picture
from sodec.cli import main
from sodec.errors import DeviceError, ViewError
from sodec.models import LITE, SD21, SodecModel
from sodec.picture import writing
from sodec.pipeline import device, fitting
from sodec.pipeline.tiles import Box

CPU = torch.device("cpu")


def test_estimate_grows_with_pixels_and_width():
    small, wide, deep, lite = (
        fitting.decoding_bytes(config, dtype, 512, width)
        for config, dtype, width in (
            (SD21, torch.bfloat16, 512), (SD21, torch.bfloat16, 1024), (SD21, torch.float32, 512),
            (LITE, torch.bfloat16, 512),
        )
    )  # fmt: skip
    assert 1.8 * small < wide < 2 * small
    assert 1.8 * small < deep < 2 * small
    assert lite < small / 6


class LiveTensors(TorchDispatchMode):
    """Peak bytes of the tensors that were allocated inside."""

    def __init__(self):
        super().__init__()
        self.views, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self.views:
                    self.views[key] = 0
                    self.now += size
                self.views[key] += 1
                weakref.finalize(tensor, self._gone, key, size)
        self.peak = max(self.peak, self.now)
        return made

    def _gone(self, key, size):
        self.views[key] -= 1
        if not self.views[key]:
            del self.views[key]
            self.now -= size


def test_the_estimate_for_sd21_is_above_what_its_widest_part_takes():
    """The device "meta" computes nothing, but tensors have the same lifetimes."""
    with torch.device("meta"):
        model = SodecModel(SD21).requires_grad_(False)
        latent = torch.empty(1, SD21.latent, 1152 // 8, 1152 // 8)
    with LiveTensors() as live, torch.no_grad():
        model.picture(latent, None, None, None)
    assert 0.6 < live.peak / fitting.decoding_bytes(SD21, torch.float32, 1152, 1152) < 1


def test_too_large_a_window_names_the_tile_that_fits():
    with pytest.raises(
        DeviceError, match=r"1152x1152 pixels at once with sd21 takes 4\.20 GB.*1\.00 GB free: tile=256"
    ):
        fitting.check(SD21, "cpu", 1_000_000_000, torch.float32, 1152, 1152)
    fitting.check(SD21, "cpu", 1_000_000_000, torch.float32, 256 + 128, 256 + 128)


def test_weights_too_large_are_named(monkeypatch):
    monkeypatch.setattr(device, "available", lambda device: 1_000_000_000)
    with pytest.raises(DeviceError, match=r"weights of sd21 take 4\.80 GB"):
        device.check_weights(2_400_000_000, CPU, torch.float32, "sd21")


def test_the_codec_asks(monkeypatch):
    codec = sodec.Codec(weights=folder())
    data = codec.compress(photo(100, 80))
    monkeypatch.setattr(device, "available", lambda device: 100)
    with pytest.raises(DeviceError, match=r"no tile would fit"):
        codec.decompress(data)
    with pytest.raises(DeviceError, match="weights of tiny"):
        sodec.Codec(weights=folder())


def test_what_is_free_is_known_here():
    free = device.available(CPU)
    assert free is None or free > 0


def test_a_smaller_tile_gives_nearly_the_same_picture():
    picture = photo(300, 280)
    whole, cut = sodec.Codec(weights=folder()), sodec.Codec(weights=folder(), tile=128)
    data = whole.compress(picture, 80)
    told = []
    cut.decompress(data, progress=told.append)
    assert len(told) == 9
    a, b = (codec.decompress(data, output="numpy").astype(int) for codec in (whole, cut))
    assert a.shape == b.shape
    # Tokens see less of the picture and so differ; noise of two random networks would differ by far more.
    assert np.abs(a - b).mean() < 0.25 * np.abs(a - a.mean()).mean()


@pytest.mark.parametrize("tile", [0, 100, 64])
def test_tiles_that_are_none_are_named(tile):
    with pytest.raises(ViewError, match=rf"tile must be a multiple of 128 \(got {tile}\)"):
        sodec.Codec(weights=folder(), tile=tile)
    done = CliRunner().invoke(main, ["demo", "--tile", str(tile)])
    assert done.exit_code == 2
    assert f"(got {tile})" in done.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_named():
    with pytest.raises(DeviceError, match="sees no CUDA GPU"):
        sodec.Codec(weights=folder(), device="cuda")
    with pytest.raises(DeviceError, match="cuda_graphs needs a CUDA device"):
        sodec.Codec(weights=folder(), cuda_graphs=True)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "I;16"])
@pytest.mark.parametrize("full", [False, True], ids=["disk", "full disk"])
@pytest.mark.filterwarnings("ignore:the picture is")
def test_pictures_by_way_of_a_file_are_the_same(monkeypatch, mode, full):
    image = Image.fromarray(photo(40, 60))
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.convert(mode).save(file, "TIFF", exif=exif)
    expected = picture.load(file)

    def no_file():
        raise OSError("No space left on device")

    monkeypatch.setattr(picture.loading, "FILE_PIXELS", 0)
    monkeypatch.setattr(picture.loading, "BAND_PIXELS", 500)  # several bands
    if full:
        monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    loaded = picture.load(file)
    assert np.array_equal(loaded.rgb, expected.rgb)
    assert (loaded.alpha is None) == (expected.alpha is None)
    assert loaded.alpha is None or np.array_equal(loaded.alpha, expected.alpha)
    with Image.open(file) as opened:
        picture.load(opened)
        opened.getpixel((0, 0))  # an image of the caller's stays open


def test_arrays_of_the_caller_are_not_changed():
    alpha = np.zeros((16, 16, 1), np.uint8)
    alpha[8:] = 255
    planes = np.concatenate([photo(16, 16), alpha], -1)
    before = planes.copy()
    for source in (planes, torch.from_numpy(planes).permute(2, 0, 1)):
        assert not np.array_equal(picture.load(source).rgb, before[..., :3])  # filled under transparency
        assert np.array_equal(planes, before)


def test_a_search_for_a_size_keeps_only_y_of_the_whole_picture():
    engine = codec().engine
    kept = engine.analyse(photo(256, 512), Box(128, 0, 384, 256))
    stored = kept.y.untyped_storage().nbytes() + kept.z.nbytes
    assert stored <= 16 * 16 * engine.dtype.itemsize * engine.model.config.y_channels + kept.z.nbytes


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_a_file_is_checked_without_the_limit_of_pillow(kind, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
    monkeypatch.setattr(writing, "ROWS", 2)  # Pillow checks crops too
    image = Image.fromarray(photo(40, 30))
    image.info["comment"] = "kept"
    assert writing.encoded(image, kind)
    assert not recwarn.list
    assert image.info == {"comment": "kept"}
