"""Uploads to `sodec ui`, without a page: the codec's own bytes, limits, and sessions that are dropped.

pytest tests/test_ui.py
"""

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import codec, photo

from sodec.errors import CorruptStreamError, PictureTooLargeError, TargetError, UnsupportedPictureError
from sodec.stream import container
from sodec.ui.result import result
from sodec.ui.sessions import DROPPED, IDLE_SECONDS, Sessions
from sodec.ui.trial import Limits, Upload, Wish, match, open_upload, run_trial

LIMITS = Limits(bytes=1_000_000, pixels=200_000)


def file(array=None, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(photo(120, 80) if array is None else array).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_photo_there_and_back():
    trial = run_trial(codec(), open_upload("a.png", file(), LIMITS), Wish(quality=30))
    assert trial.stream == codec().compress(photo(120, 80), 30)
    assert trial.quality == 30
    assert np.array_equal(trial.decoded.rgb, np.asarray(codec().decompress(trial.stream)))
    assert trial.bpp == 8 * len(trial.stream) / (120 * 80)
    assert {"analysis", "entropy"} <= set(trial.encode_times)
    assert {"entropy", "fidelity", "UNet"} <= set(trial.decode_times)
    assert trial.metrics["PSNR, dB"] < 60
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(trial.png()))), trial.decoded.rgb)


def test_bytes_can_be_asked_for():
    upload = open_upload("a.png", file(), LIMITS)
    assert len(run_trial(codec(), upload, Wish(max_bytes=200)).stream) <= 200
    with pytest.raises(TargetError, match="smallest possible"):
        run_trial(codec(), upload, Wish(max_bytes=20))


def test_a_stream_is_told_by_its_bytes_and_shown_beside_its_fidelity_picture():
    stream = codec().compress(photo(60, 40), 40)
    trial = run_trial(codec(), open_upload("renamed.bin", stream, LIMITS), Wish(quality=1))
    assert (trial.stream, trial.quality, trial.encode_times, trial.metrics) == (stream, 40, {}, {})
    assert np.array_equal(trial.fidelity, np.asarray(codec().decompress(stream, mode="fidelity")))
    assert match(trial, "webp") is None
    assert "fidelity picture" in result(trial, None)


def test_the_rival_is_matched_in_bytes_and_encodes_once_per_setting(monkeypatch):
    upload = open_upload("a.png", file(), LIMITS)
    trial = run_trial(codec(), upload, Wish(quality=50))
    found = match(trial, "jpeg")
    sizes = {}
    for setting in range(1, 26):
        sizes[setting] = len(file(kind="JPEG", quality=setting, optimize=True))
    assert found.bytes == min(sizes.values(), key=lambda size: abs(np.log(size / len(trial.stream))))
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: pytest.fail("encoded again"))
    again = match(trial, "jpeg")
    assert (again.setting, again.bytes) == (found.setting, found.bytes)


@pytest.mark.parametrize(
    ("name", "data", "error", "sentence"),
    [
        ("a.txt", b"hello", UnsupportedPictureError, "a.txt is not a picture"),
        ("a.jpg", b"", UnsupportedPictureError, "a.jpg is not a picture"),
        ("a.png", file()[:300], UnsupportedPictureError, "a.png can't be decoded"),
        ("a.png", bytes(1_000_001), PictureTooLargeError, "1,000,001 bytes; this page takes 1,000,000"),
        ("a.png", file(np.zeros((400, 501, 3), np.uint8)), PictureTooLargeError, "501x400 pixels; this page takes 0.2"),
        ("a.sodec", b"hello", CorruptStreamError, "not a .sodec stream"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", UnsupportedPictureError, "EPS"),
    ],
)
def test_what_is_refused_and_why(name, data, error, sentence):
    with pytest.raises(error, match=sentence):
        open_upload(name, data, LIMITS)


def test_a_stream_that_claims_too_many_pixels_is_refused():
    stream = codec().compress(np.zeros((500, 500, 3), np.uint8), 1)
    with pytest.raises(PictureTooLargeError, match="500x500"):
        open_upload("a.sodec", stream, LIMITS)


def test_the_page_s_limit_on_pixels_holds_where_a_stream_is_decoded():
    stream = codec().compress(np.zeros((40, 50, 3), np.uint8), 1)
    assert run_trial(codec(), Upload("a.sodec", stream=stream), Wish(), max_pixels=2000).decoded.size == (50, 40)
    with pytest.raises(PictureTooLargeError, match="50x40"):
        run_trial(codec(), Upload("a.sodec", stream=stream), Wish(), max_pixels=1999)


def test_what_was_converted_is_said():
    frames = [Image.fromarray(photo(40, 30, seed)) for seed in range(2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert open_upload("a.gif", buffer.getvalue(), LIMITS).notes == ("the first of its frames",)
    buffer = io.BytesIO()
    Image.new("CMYK", (40, 30)).save(buffer, "JPEG")
    assert "CMYK" in open_upload("a.jpg", buffer.getvalue(), LIMITS).notes[0]


def test_a_result_escapes_the_name_and_shows_a_large_picture_smaller():
    wide = np.repeat(photo(1700, 8), 2, axis=0)
    trial = run_trial(codec(), open_upload("<b>.png", file(wide), LIMITS), Wish(quality=1))
    text = result(trial, match(trial, "webp"))
    assert "<b>.png" not in text
    assert "&lt;b&gt;.png" in text
    assert "1/2 of its size: 850x8 pixels" in text
    assert 'width="850" height="8"' in text
    assert f"{len(trial.stream):,}" in text


def test_sessions_hold_their_own_and_are_dropped():
    first = run_trial(codec(), open_upload("first.png", file(), LIMITS), Wish(quality=1))
    sessions = Sessions(first, limit=2)
    sessions.open("a").upload = open_upload("mine.png", file(photo(20, 20)), LIMITS)
    assert sessions.of("a").upload.name == "mine.png"
    assert sessions.open("b").upload.name == "first.png"
    sessions.of("a")
    sessions.open("c")  # one too many: b has been idle longest
    assert sessions.of("a").upload.name == "mine.png"
    assert sessions.of("b").problem == DROPPED
    sessions.drop("a")
    sessions.drop("never there")
    assert (sessions.of("a").upload, sessions.of("a").trial) == (None, None)
    assert len(sessions) == 1, "an event that ends after its page was closed leaves nothing behind"
    sessions.of("b", hold=True).upload = first.upload
    assert sessions.of("b").upload is first.upload
    assert sessions.open("a").upload.name == "first.png"


def test_sessions_end_by_time_and_by_what_they_hold():
    now = 0.0
    first = run_trial(codec(), open_upload("first.png", file(), LIMITS), Wish(quality=1))
    assert first.nbytes + first.upload.nbytes > 2 * 3 * 120 * 80
    sessions = Sessions(first, total_bytes=2 * (first.nbytes + first.upload.nbytes), clock=lambda: now)
    for key in "abc":
        sessions.open(key)
    assert len(sessions) == 2
    assert sessions.of("a").problem == DROPPED
    assert sessions.of("c").upload is first.upload
    now = IDLE_SECONDS - 1.0
    sessions.of("c")
    now += 2
    sessions.expire()
    assert len(sessions) == 1
    assert sessions.of("c").upload is first.upload


def test_without_gradio_the_command_says_what_to_install(tmp_path):
    script = "import sys; sys.modules['gradio'] = None; from sodec.cli import main; main(['ui'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("sodec: sodec ui needs `pip install 'sodec[ui]'`")


def test_limits_of_the_page_are_named_as_its_command_has_them():
    data = codec().compress(photo(60, 40))
    tiled = container.write(replace(container.read(data), width=3000, height=10, tile_log2=12))
    for name, upload, words in (
        ("a.sodec", data, "60x40 pixels; this page takes 0.002 million at most (--max-megapixels)"),
        ("a.sodec", data + bytes(100), "--max-mb"),
        ("t.sodec", tiled, "t.sodec: the stream has tiles of 3000 pixels a side; the limit is 1024"),
    ):
        limits = Limits(bytes=len(data) + 50, pixels=40_000 if upload is tiled else 2000)
        with pytest.raises(PictureTooLargeError) as raised:
            open_upload(name, upload, limits)
        assert words in str(raised.value)
        assert "max_" not in str(raised.value)
