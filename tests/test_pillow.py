"""The Pillow plugin: files open by their header, save like any format, and thumbnails decode the preview.

pytest tests/test_pillow.py
"""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import codec, photo

import sodec
from sodec.errors import CorruptStreamError, QualityError, TargetError

pytestmark = pytest.mark.usefixtures("tiny_as_lite")


@pytest.fixture
def scales(monkeypatch):
    """The scales that are decoded."""
    decoded = []
    decompress = sodec.api.decompress

    def call(data, *, scale, **options):
        decoded.append(scale)
        return decompress(data, scale=scale, **options)

    monkeypatch.setattr("sodec.api.decompress", call)
    return decoded


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_every_mode_there_and_back(tmp_path, mode):
    original = Image.fromarray(np.dstack([photo(50, 40), photo(50, 40)[..., 0]])).convert(mode)
    original.save(tmp_path / "a.sodec", quality=30)
    assert (tmp_path / "a.sodec").read_bytes() == codec().compress(original, 30)
    with Image.open(tmp_path / "a.sodec") as opened:
        assert (opened.format, opened.mode, opened.size) == ("SODEC", mode, (50, 40))
        assert opened.get_format_mimetype() == "image/x-sodec"
        expected = codec().decompress((tmp_path / "a.sodec").read_bytes(), output="numpy")
        assert np.array_equal(np.asarray(opened), expected)
        assert np.array_equal(
            np.asarray(opened.convert("RGB").crop((0, 0, 9, 9)))[..., :1], expected[:9, :9].reshape(9, 9, -1)[..., :1]
        )


def test_opening_decodes_nothing(scales):
    data = codec().compress(photo(70, 50))
    opened = Image.open(io.BytesIO(data[:40] + bytes(len(data) - 40)))  # what follows the header is not looked at
    assert opened.size == (70, 50)
    assert scales == []
    with pytest.raises(CorruptStreamError):
        opened.load()


@pytest.mark.parametrize(("size", "scale"), [((17, 12), 1 / 4), ((16, 16), 1 / 2), ((8, 5), 1 / 8), ((60, 60), 1)])
def test_thumbnails_decode_the_preview(scales, size, scale):
    data = codec().compress(photo(140, 100))
    opened = Image.open(io.BytesIO(data))
    opened.thumbnail(size)
    assert scales == [scale]
    assert max(opened.size[0] / size[0], opened.size[1] / size[1]) == 1


def test_draft_is_taken_once_and_before_loading(scales):
    data = codec().compress(photo(133, 101))
    opened = Image.open(io.BytesIO(data))
    mode, box = opened.draft(None, (40, 40))
    assert (mode, opened.size, box) == ("RGB", (67, 51), (0, 0, 66.5, 50.5))
    assert opened.draft(None, (1, 1)) is None
    assert np.asarray(opened).shape == (51, 67, 3)
    assert opened.load() is not None
    assert scales == [1 / 2]


@pytest.mark.parametrize("first", ["import sodec; from PIL import Image", "from PIL import Image; import sodec"])
def test_either_may_be_imported_first(tmp_path, first):
    (tmp_path / "a.sodec").write_bytes(codec().compress(photo(70, 50)))
    script = (
        f"import sys; {first}; image = Image.open('a.sodec'); "
        "assert image.format == 'SODEC'; assert 'torch' not in sys.modules; "
        "assert Image.__spec__.loader.get_source('PIL.Image'); "
        "assert not any(type(finder).__module__ == 'sodec.integrations.pillow' for finder in sys.meta_path)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_options_and_their_errors(tmp_path):
    image = Image.fromarray(photo(300, 200))
    image.save(tmp_path / "a.sodec", max_bytes=800)
    assert 700 < (tmp_path / "a.sodec").stat().st_size <= 800
    image.save(buffer := io.BytesIO(), "SODEC")
    assert sodec.inspect(buffer.getvalue()).quality == 50
    with pytest.raises(QualityError, match="101"):
        image.save(tmp_path / "b.sodec", quality=101)
    with pytest.raises(TargetError, match="smallest"):
        image.save(tmp_path / "b.sodec", max_bytes=1)
    assert not (tmp_path / "b.sodec").exists()


def test_metadata_is_there_once_pixels_are():
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    image = Image.fromarray(photo(30, 20))
    image.info["exif"] = exif.tobytes()
    image.save(buffer := io.BytesIO(), "SODEC", metadata=True)
    opened = Image.open(buffer)
    opened.load()
    assert opened.getexif()[0x010F] == "a camera"
