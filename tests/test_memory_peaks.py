"""What compression and decompression take at most, in processes of their own, against what their checks allow.

pytest tests/test_memory_peaks.py
"""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import photo

import sodec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


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


# As DECOMPRESSION, by ONNX Runtime, twice: what the first run keeps must be of use to the second, whose checks are left
# out. Checks count the weights apart, so the graphs are loaded before.
BY_ONNX_RUNTIME = (
    DECOMPRESSION.replace(
        "codec = sodec.Codec(dtype=sys.argv[3])",
        "codec = sodec.Codec(engine='onnx')\n"
        "for graph in ('dequantise', 'fidelity', 'decoder'):\n"
        "    codec.engine.session(graph)",
    )
    .replace("codec.decompress(path, **options)", "codec.decompress(path)\nonce = max(allowed)\ncodec.decompress(path)")
    .replace("max(allowed))", "once)")
)


def test_decompression_by_onnx_runtime_takes_what_its_checks_allow(streams):
    pytest.importorskip("onnxruntime")
    peak, allowed = peak_and_allowed(BY_ONNX_RUNTIME, streams["1mp.jpg"], {}, "float32")
    assert peak <= allowed, f"{peak / 1e6:.0f} MB of {allowed / 1e6:.0f}"


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
