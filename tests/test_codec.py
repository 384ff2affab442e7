"""The codec with a tiny model: exact sizes, exact symbols, accepted and refused inputs.

pytest tests/test_codec.py
"""

import io
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import codec, folder, photo, write_weights

import sodec
from sodec.errors import (
    CorruptStreamError,
    DeviceError,
    NewerFormatError,
    QualityError,
    SodecError,
    UnknownModelError,
    UnsupportedPictureError,
)
from sodec.pipeline.source import TileSource
from sodec.stream import container

SIZES = [(1, 1), (1, 17), (2, 2), (15, 16), (16, 16), (17, 33), (63, 65), (64, 64), (129, 100), (257, 31)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_every_size_comes_back_exactly(size, quality):
    picture = photo(*size)
    decoded = codec().decompress(codec().compress(picture, quality), output="numpy")
    assert decoded.shape == picture.shape
    assert decoded.dtype == np.uint8


def test_decoder_receives_the_symbols_that_the_encoder_sent():
    picture = photo(100, 60)
    data = codec().compress(picture, 70)
    y_hat, z_hat, _ = codec().latents(data)
    window = codec().engine.tensor(np.pad(picture, ((0, 4), (0, 12), (0, 0)), "edge"))
    with torch.inference_mode():
        y = codec().model.analysis(window)
        z = codec().model.hyper_analysis(y).round()
        gain = codec().engine.gain(70)
    assert torch.equal(z, z_hat)
    coded = (y - y_hat).abs() * gain <= 0.5 + 1e-3
    # what is skipped stays at the mean, however far y is from it
    assert coded.float().mean() > 0.2
    assert np.abs((y_hat * gain).numpy()).max() > 1, "the test would pass with every symbol zero"


def test_quality_moves_the_bytes():
    sizes = [len(codec().compress(photo(200, 150), quality)) for quality in (1, 25, 50, 75, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_header_and_integrity_take_16_bytes():
    info = sodec.inspect(codec().compress(photo(768, 512), 30))
    assert info.bytes["header"] + info.bytes["integrity"] <= 16
    assert sum(info.bytes.values()) == 2 * info.bytes["total"]


def test_same_bytes_and_pixels_from_another_process_and_thread_count(tmp_path):
    data = codec().compress(photo(150, 90), 60)
    (tmp_path / "a.sodec").write_bytes(data)
    here = codec().decompress(data, output="numpy")
    script = (
        "import sys, torch, numpy, sodec\n"
        "torch.set_num_threads(int(sys.argv[3]))\n"
        "codec = sodec.Codec(weights=sys.argv[1])\n"
        "data = open(sys.argv[2], 'rb').read()\n"
        "numpy.save(sys.argv[2] + sys.argv[3], codec.decompress(data, output='numpy'))\n"
        "numpy.save(sys.argv[2] + 'y' + sys.argv[3], codec.latents(data).y_hat.numpy())\n"
    )
    for threads in ("1", "2"):
        path = str(tmp_path / "a.sodec")
        subprocess.run([sys.executable, "-c", script, str(folder()), path, threads], check=True, cwd=tmp_path)
        there = np.load(path + threads + ".npy")
        assert np.abs(there.astype(int) - here).max() <= 1
        np.testing.assert_allclose(np.load(path + "y" + threads + ".npy"), codec().latents(data).y_hat, atol=1e-4)


def test_batches_are_lists_of_the_same():
    pictures = [photo(40, 30), photo(64, 64, 1), photo(7, 90, 2)]
    streams = codec().compress(pictures, 50)
    assert streams == [codec().compress(one, 50) for one in pictures]
    for decoded, stream in zip(codec().decompress(streams, output="numpy"), streams, strict=True):
        assert np.array_equal(decoded, codec().decompress(stream, output="numpy"))
    tensor = torch.rand(2, 3, 32, 48)
    assert len(codec().compress(tensor)) == 2
    assert codec().compress([]) == []


def test_paths_and_files_are_taken_as_bytes_are(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(photo(40, 30)).save(buffer, "PNG")
    data = codec().compress(photo(40, 30), 50)

    class Pipe(io.RawIOBase):
        def read(self, count=-1):
            return buffer.getvalue()

    buffer.seek(0)
    assert codec().compress(buffer, 50) == codec().compress(Pipe(), 50) == data
    path = tmp_path / "a.sodec"
    path.write_bytes(data)
    expected = codec().decompress(data, output="numpy")
    for source in (path, str(path), io.BytesIO(data), bytearray(data), memoryview(data)):
        assert np.array_equal(codec().decompress(source, output="numpy"), expected)
    assert sodec.inspect(path).width == sodec.inspect(io.BytesIO(data)).width == 40
    for source in (7, None, io.StringIO("text")):
        with pytest.raises(TypeError, match=r"got (int|NoneType|StringIO)"):
            codec().decompress(source)


def test_outputs():
    grey = photo(33, 20)[..., 0]
    rgba = np.dstack([photo(33, 20), grey])
    expected = {"L": (grey, (20, 33), (1, 20, 33)), "RGBA": (rgba, (20, 33, 4), (4, 20, 33))}
    for mode, (source, array_shape, tensor_shape) in expected.items():
        data = codec().compress(source)
        assert codec().decompress(data).mode == mode
        assert codec().decompress(data, output="numpy").shape == array_shape
        tensor = codec().decompress(data, output="torch")
        assert tensor.shape == tensor_shape
        assert tensor.min() >= 0
        assert tensor.max() <= 1
    exact = codec().compress(rgba, alpha="lossless")
    assert np.array_equal(codec().decompress(exact, output="numpy")[..., 3], grey)
    near = codec().decompress(codec().compress(rgba), output="numpy")[..., 3]
    assert np.abs(near.astype(int) - grey).max() <= 4
    with pytest.raises(ValueError, match="'jpeg'"):
        codec().decompress(data, output="jpeg")
    with pytest.raises(ValueError, match="'fast'"):
        codec().decompress(data, mode="fast")


def test_fidelity_mode_is_another_picture():
    data = codec().compress(photo(64, 48))
    full, fidelity = (codec().decompress(data, output="numpy", mode=mode) for mode in ("full", "fidelity"))
    assert full.shape == fidelity.shape
    assert not np.array_equal(full, fidelity)


@pytest.mark.parametrize("size", [(1025, 40), (1040, 1030), (2100, 20)])
def test_pictures_beyond_one_tile(size):
    picture = photo(*size)
    data = codec().compress(picture, 50)
    stream = container.read(data)
    assert len(stream.payloads) == -(-size[0] // 1024) * -(-size[1] // 1024)
    decoded = codec().decompress(data, output="numpy")
    assert decoded.shape == picture.shape
    with pytest.raises(ValueError, match="tiles"):
        codec().latents(data)


def test_tiles_join_without_a_step():
    """The fidelity decoder is local: with a halo beyond its reach, tiled and whole synthesis agree."""
    data = codec().compress(photo(1024, 64), 80)
    whole = codec().decompress(data, output="numpy", mode="fidelity")
    windows = []
    tiled = sodec.Codec(weights=folder(), tile=256).decompress(
        data, output="numpy", mode="fidelity", progress=windows.append
    )
    assert len(windows) == 4
    assert np.abs(whole.astype(int) - tiled).max() <= 1


@pytest.mark.parametrize("quality", [0, 0.9, 100.5, -1, float("nan"), "50", True])
def test_quality_out_of_range_is_named(quality):
    with pytest.raises(QualityError, match=str(quality)):
        codec().compress(photo(8, 8), quality)


def test_quality_is_kept_in_halves():
    assert sodec.inspect(codec().compress(photo(8, 8), 33.3)).quality == 33.5


def test_streams_of_other_weights_are_refused_by_name(tmp_path):
    other = sodec.Codec(weights=write_weights(tmp_path, seed=3).folder)
    data = codec().compress(photo(8, 8))
    with pytest.raises(UnknownModelError, match=codec().bundle.fingerprint.hex()):
        other.decompress(data)
    with pytest.raises(UnknownModelError, match=codec().bundle.fingerprint.hex()):
        sodec.decompress(data)


def test_every_altered_byte_is_refused():
    data = codec().compress(photo(30, 20), 90)
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 0x55
        with pytest.raises((CorruptStreamError, NewerFormatError)):
            codec().decompress(bytes(altered))


def test_payloads_that_pass_the_check_but_are_no_payload_raise_only_our_errors():
    """As an attacker would send them: the CRC is right, the coded bytes are wrong."""
    stream = container.read(codec().compress(photo(60, 40), 90))
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        payload = bytearray(stream.payloads[0])
        if random.random() < 0.3:
            payload = payload[: random.integers(1, len(payload))]
        for _ in range(random.integers(1, 4)):
            payload[random.integers(len(payload))] = random.integers(256)
        data = container.write(container.Stream(**{**vars(stream), "payloads": (bytes(payload),)}))
        try:
            decoded = codec().decompress(data, output="numpy")
        except SodecError:
            refused += 1
        else:
            assert decoded.shape == (40, 60, 3)
    assert refused > 100


def test_devices_and_dtypes_are_refused_by_name():
    with pytest.raises(DeviceError, match="'abacus'"):
        sodec.Codec(weights=folder(), device="abacus")
    with pytest.raises(DeviceError, match="'float8'"):
        sodec.Codec(weights=folder(), dtype="float8")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA GPU"):
            sodec.Codec(weights=folder(), device="cuda")


def test_bfloat16_decodes_the_same_symbols():
    data = codec().compress(photo(90, 70), 60)
    half = sodec.Codec(weights=folder(), dtype="bfloat16")
    stream = container.read(data)
    (z, y), (z_here, y_here) = (TileSource(one.engine, stream, content=False).symbols(0) for one in (half, codec()))
    assert np.array_equal(z, z_here)
    assert np.array_equal(y, y_here)
    a, b = (one.decompress(data, output="numpy", mode="fidelity").astype(int) for one in (half, codec()))
    assert np.abs(a - b).mean() < 3


def test_animation_needs_leave(tmp_path):
    frames = [Image.fromarray(photo(16, 16, seed)) for seed in range(2)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedPictureError, match=r"a\.gif.*2 frames"):
        codec().compress(path)
    assert len(codec().compress(path, first_frame=True)) > 20


def test_reports_of_threads_that_share_a_codec_are_their_own():
    data = codec().compress(photo(60, 40), 50)
    reports = [sodec.Report() for _ in range(4)]
    modes = ["full", "fidelity"] * 2
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda report, mode: codec().decompress(data, mode=mode, report=report), reports, modes))
    for report, mode in zip(reports, modes, strict=True):
        assert ("UNet" in report.times) == (mode == "full")
        assert report.times["entropy"] > 0
        assert report.lost == []


def test_functions_take_weights_and_lists(tiny_as_lite, tmp_path):
    other = write_weights(tmp_path, seed=3)
    streams = sodec.compress([photo(20, 30), photo(9, 9)], weights=tmp_path)
    assert [sodec.inspect(stream).fingerprint for stream in streams] == [other.fingerprint.hex()] * 2
    decoded = sodec.decompress(streams, weights=tmp_path, output="numpy")
    assert [pixels.shape for pixels in decoded] == [(30, 20, 3), (9, 9, 3)]
    with pytest.raises(UnknownModelError, match="weights="):
        sodec.decompress(streams)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_told_what_to_do_and_does_not_hang():
    codec().compress(photo(64, 64))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child():
        try:
            codec().compress(photo(64, 64))
        except DeviceError as error:
            queue.put(str(error))

    process = context.Process(target=child)
    process.start()
    assert "spawn" in queue.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0


def test_a_child_that_is_forked_before_use_works(tmp_path):
    script = (
        "import multiprocessing, sys, numpy, sodec\n"
        "def child(queue):\n"
        "    queue.put(len(sodec.Codec(weights=sys.argv[1]).compress(numpy.zeros((20, 20, 3), numpy.uint8))))\n"
        "context = multiprocessing.get_context('fork')\n"
        "queue = context.Queue()\n"
        "process = context.Process(target=child, args=(queue,))\n"
        "process.start()\n"
        "assert queue.get(timeout=60) > 20\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(folder())], check=True, cwd=tmp_path)
