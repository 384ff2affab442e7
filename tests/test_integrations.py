"""sodec inside zarr and Ray Data, where they are installed.

pytest tests/test_integrations.py
"""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from tiny import codec, folder, photo

from sodec.errors import UnsupportedPictureError


@pytest.mark.usefixtures("tiny_as_lite")
def test_numcodecs_round_trips():
    numcodecs = pytest.importorskip("numcodecs")
    from sodec.integrations.numcodecs import Sodec

    made = Sodec(quality=30)
    assert numcodecs.get_codec(made.get_config()) == made
    assert made.get_config() == {"id": "sodec", "quality": 30, "model": "lite", "device": "cpu"}
    for chunk in (photo(40, 30), photo(40, 30)[None, None], photo(40, 30)[..., 0], photo(40, 3)[None, ..., 1]):
        data = made.encode(chunk)
        picture = chunk.reshape([n for i, n in enumerate(chunk.shape) if n > 1 or i > chunk.ndim - 3])
        expected = codec().decompress(codec().compress(picture, 30), output="numpy")
        assert np.array_equal(made.decode(data), expected)
        out = np.empty(chunk.shape, np.uint8)
        made.decode(np.frombuffer(data, np.uint8), out)
        assert np.array_equal(out.reshape(expected.shape), expected)
    for chunk in (photo(40, 30).astype(np.uint16), np.stack([photo(9, 9)] * 2), photo(9, 9)[:, 0, 0]):
        with pytest.raises(UnsupportedPictureError):
            made.encode(chunk)


@pytest.mark.usefixtures("tiny_as_lite")
def test_zarr_arrays():
    zarr = pytest.importorskip("zarr")
    from sodec.integrations.numcodecs import Sodec

    array = zarr.create_array(
        {}, shape=(2, 40, 60, 3), chunks=(1, 40, 60, 3), dtype="u1", zarr_format=2, compressors=Sodec(quality=40)
    )
    pictures = [photo(60, 40, seed) for seed in range(2)]
    array[:] = np.stack(pictures)
    for number, picture in enumerate(pictures):
        expected = codec().decompress(codec().compress(picture, 40), output="numpy")
        assert np.array_equal(array[number], expected)


@pytest.mark.slow
def test_ray_with_two_workers(tmp_path):
    ray = pytest.importorskip("ray")
    from sodec.integrations import ray as sodec_ray

    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(photo(30, 20, number)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "bad.jpg").write_text("not a picture")
    (tmp_path / "in" / "notes.txt").write_text("skipped")
    with tarfile.open(tmp_path / "in" / "shard.tar", "w") as shard:
        Image.fromarray(photo(30, 20, 9)).save(buffer := io.BytesIO(), "PNG")
        member = tarfile.TarInfo("deep/9.png")
        member.size = len(buffer.getvalue())
        shard.addfile(member, io.BytesIO(buffer.getvalue()))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        streams = sodec_ray.compress(
            sodec_ray.read(str(tmp_path / "in")), workers=2, codec={"weights": str(folder())}, quality=30
        )
        errors = sodec_ray.write(streams, tmp_path / "out")
    finally:
        ray.shutdown()
    assert len(errors) == 1
    assert "bad.jpg" in errors[0]
    found = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.*")}
    assert set(found) == {"in/0.sodec", "in/1.sodec", "in/2.sodec", "deep/9.sodec"}
    assert found["deep/9.sodec"].read_bytes() == codec().compress(photo(30, 20, 9), 30)
