"""Memory: decoding that would not fit is refused before it starts, and the error names a smaller tile that fits; large
pictures take a stated number of bytes per pixel.

pytest tests/test_memory.py
"""

import io
import subprocess
import sys
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


# Prints by how many bytes per pixel the peak grows in a part of a program. A process of its own: peaks never go down.
PEAK = """
import sys
from PIL import Image
from sodec import picture
from sodec.picture import writing

def status(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

Image.init()
path, part, kind = sys.argv[1:]
image = None if part == "load" else picture.to_pil(picture.load(path))
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = status("VmRSS")
size = picture.load(path).size if part == "load" else image.size
if part == "write":
    writing.encoded(image, kind)
print((status("VmHWM") - before) / (size[0] * size[1]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    Image.new("RGB", (8000, 6000), (90, 120, 40)).save(path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("part", "kind", "limit"),
    # Pillow holds 4 bytes per pixel and we 3: both at once would be 7. Read back for a check, a PNG would take 4.
    [("load", "", 6), ("write", "PNG", 2), ("write", "JPEG", 2)],
)
def test_large_pictures_are_held_once(large, part, kind, limit):
    command = [sys.executable, "-c", PEAK, large, part, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=large.parent)
    assert float(done.stdout) < limit


# Prints the peak of a compression, and the largest that any of its checks allowed, both above the memory at its start.
COMPRESSION = """
import ctypes, sys, warnings
import sodec
from sodec import memory
from sodec.pipeline import device

def status(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

warnings.simplefilter("ignore")
path, options = sys.argv[1], eval(sys.argv[2])
codec = sodec.Codec(dtype=sys.argv[3])
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before, allowed = status("VmRSS"), []

class Free(int):  # little is free, and yet enough for everything; notes what is asked for
    def __lt__(self, needed):
        allowed.append(status("VmRSS") + needed - before)
        return False

    def __ge__(self, needed):
        return not self < needed

memory.be_frugal()
memory.free = lambda: Free()
codec.compress(path, **options)
print(status("VmHWM") - before, max(allowed))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files by name: photo-like, with alpha, of 16 bits."""
    folder = tmp_path_factory.mktemp("pictures")
    small, paths = photo(1200, 800), {}
    large = Image.fromarray(np.tile(small, (5, 5, 1)))
    for name, image in {
        "24mp.jpg": large, "1mp.jpg": Image.fromarray(small), "quarter.png": Image.fromarray(small[:512, :512]),
        "alpha.png": Image.fromarray(np.dstack([small, small[..., 0]])), "24mp.webp": large,
        "16bit.png": Image.fromarray(np.tile(small[..., 0].astype(np.uint16) * 257, (3, 3))),
    }.items():  # fmt: skip
        paths[name] = folder / name
        image.save(paths[name], **({"method": 0} if name.endswith("webp") else {}))
    return paths


def peak_and_allowed(code, path, options, dtype):
    """The bytes that a process of its own took at most, and the most that its checks asked for."""
    command = [sys.executable, "-c", code, path, repr(options), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=path.parent)
    return map(int, done.stdout.split())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "options", "dtype"),
    [
        ("24mp.jpg", {}, "auto"), ("24mp.webp", {}, "auto"), ("16bit.png", {}, "auto"), ("1mp.jpg", {}, "auto"),
        ("1mp.jpg", {}, "float32"), ("alpha.png", {}, "auto"), ("24mp.jpg", {"max_bytes": 300_000}, "auto"),
        ("quarter.png", {}, "float32"),
    ],
)  # fmt: skip
def test_compression_takes_what_its_checks_allow_and_not_much_less(pictures, name, options, dtype):
    peak, allowed = peak_and_allowed(COMPRESSION, pictures[name], options, dtype)
    assert peak <= allowed, f"{peak / 1e6:.0f} MB of {allowed / 1e6:.0f}"
    assert allowed <= 1.3 * peak + (70e6 if peak < 100e6 else 32e6), f"{peak / 1e6:.0f} MB of {allowed / 1e6:.0f}"


# The same of a decompression, as Pillow's image or as an array.
DECOMPRESSION = COMPRESSION.replace("codec.compress(path, **options)", "codec.decompress(path, **options)")


@pytest.fixture(scope="module")
def streams(pictures):
    """The streams of `pictures`, at quality 50."""
    made = {}
    for name in ("24mp.jpg", "1mp.jpg", "alpha.png", "quarter.png"):
        made[name] = pictures[name].with_suffix(".sodec")
        made[name].write_bytes(sodec.compress(pictures[name], 50))
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "options", "dtype"),
    [
        ("24mp.jpg", {}, "auto"), ("24mp.jpg", {}, "float32"), ("24mp.jpg", {"output": "numpy"}, "auto"),
        ("24mp.jpg", {"region": (100, 100, 3000, 500)}, "auto"), ("1mp.jpg", {}, "auto"), ("1mp.jpg", {}, "float32"),
        ("alpha.png", {}, "auto"), ("quarter.png", {}, "auto"),
    ],
)  # fmt: skip
def test_decompression_takes_what_its_checks_allow_and_not_much_less(streams, name, options, dtype):
    peak, allowed = peak_and_allowed(DECOMPRESSION, streams[name], options, dtype)
    assert peak <= allowed, f"{peak / 1e6:.0f} MB of {allowed / 1e6:.0f}"
    assert allowed <= 1.3 * peak + 32e6, f"{peak / 1e6:.0f} MB of {allowed / 1e6:.0f}"


# A command in a container of so many bytes, so to speak; prints whether it would have been killed.
CONTAINER = """
import sys
from sodec import memory
from sodec.cli import main

def status(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

limit = int(float(sys.argv[1]) * 1e6)
memory._of_groups = lambda: limit - status("RssAnon")
sys.argv = ["sodec", *sys.argv[2:]]
try:
    main()
finally:
    # Pages of libraries, which are given back where memory is short, count in the peak.
    print("killed" * (status("VmHWM") - status("RssFile") > limit))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("megabytes", "message"),
    [(150, "importing torch"), (400, "the weights of lite"), (530, "reading 6000x4000"), (600, None), (700, None)],
)
def test_a_small_container_ends_compression_with_a_line_and_never_without(pictures, tmp_path, megabytes, message):
    given = [str(megabytes), "compress", str(pictures["24mp.jpg"]), "-o", str(tmp_path / "out.sodec")]
    done = subprocess.run([sys.executable, "-c", CONTAINER, *given], capture_output=True, text=True, cwd=tmp_path)
    assert "killed" not in done.stdout
    if done.returncode:
        assert done.returncode == 2
        assert done.stderr.startswith("sodec: ")
        assert done.stderr.count("\n") == 1
        assert "of memory are free" in done.stderr or "free" in done.stderr
    assert message is None or message in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("megabytes", "message"), [(150, "torch"), (500, "free"), (600, None), (700, None), (850, "")])
def test_a_small_container_ends_decompression_with_a_line_and_never_without(streams, tmp_path, megabytes, message):
    given = [str(megabytes), "decompress", str(streams["24mp.jpg"]), "-o", str(tmp_path / "out.png")]
    done = subprocess.run([sys.executable, "-c", CONTAINER, *given], capture_output=True, text=True, cwd=tmp_path)
    assert "killed" not in done.stdout
    assert done.returncode in (0, 2)
    assert (tmp_path / "out.png").exists() == (done.returncode == 0)
    if done.returncode:
        assert done.stderr.startswith("sodec: ")
        assert done.stderr.count("\n") == 1
        assert message is None or message in done.stderr
    else:
        assert not message


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
