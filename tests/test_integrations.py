"""sodec inside zarr and Ray Data, where they are installed.

pytest tests/test_integrations.py
"""

import errno
import importlib
import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import codec, folder, photo

from sodec.errors import CorruptStreamError, QualityError, UnsupportedPictureError


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
def test_numcodecs_and_the_order_of_memory():
    pytest.importorskip("numcodecs")
    from sodec.integrations.numcodecs import Sodec

    codec_2 = Sodec(quality=30)
    expected = codec_2.decode(codec_2.encode(photo(40, 30)))
    with pytest.raises(UnsupportedPictureError, match="Fortran order"):
        codec_2.encode(np.asfortranarray(photo(40, 30)))
    assert np.array_equal(codec_2.decode(codec_2.encode(photo(40, 30)[::-1][::-1])), expected)
    out = np.empty((1, 30, 40, 3), np.uint8, order="F")
    assert codec_2.decode(codec_2.encode(photo(40, 30)), out) is out
    assert np.array_equal(out[0], expected)


def zarr_array(zarr, version, shape, chunks, store=None, **options):
    """An array of pictures with sodec as its codec, of zarr's format 2 or 3."""
    if version == 2:
        from sodec.integrations.numcodecs import Sodec

        options |= {"compressors": Sodec(quality=40)}
    else:
        from sodec.integrations.zarr import SodecCodec

        options |= {"serializer": SodecCodec(quality=40), "compressors": None}
    options = {"dtype": "u1", "zarr_format": version} | options
    return zarr.create_array({} if store is None else store, shape=shape, chunks=chunks, **options)


@pytest.mark.usefixtures("tiny_as_lite")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("planes", [0, 3, 4])
def test_zarr_arrays(version, planes, tmp_path):
    zarr = pytest.importorskip("zarr")
    pictures = [np.dstack([photo(60, 40, seed), photo(60, 40, 9)[..., 0]]) for seed in range(2)]
    pictures = [picture[..., 0] if planes == 0 else picture[..., :planes] for picture in pictures]
    shape = pictures[0].shape
    array = zarr_array(zarr, version, (3, *shape), (1, *shape), tmp_path / "a.zarr", fill_value=7)
    array[:2] = np.stack(pictures)
    array = zarr.open_array(tmp_path / "a.zarr")  # what is stored finds the codec
    for number, picture in enumerate(pictures):
        expected = codec().decompress(codec().compress(picture, 40, alpha="lossless"), output="numpy")
        assert np.array_equal(array[number], expected)
    assert (array[2] == 7).all()  # never written
    array[0, :4] = 0  # a part of a chunk: it is read, changed and written
    assert array[0].shape == shape


@pytest.mark.usefixtures("tiny_as_lite")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("planes", [3, 4])
def test_zarr_chunks_of_equal_planes_keep_their_shape(version, planes):
    zarr = pytest.importorskip("zarr")
    array = zarr_array(zarr, version, (70, 90, planes), (40, 60, planes))
    array[:] = np.repeat(photo(90, 70)[..., :1], planes, -1)
    assert array[:].shape == (70, 90, planes)


@pytest.mark.usefixtures("tiny_as_lite")
def test_zarr_in_fortran_order_is_refused_or_right():
    zarr = pytest.importorskip("zarr")
    picture = photo(60, 40)
    array = zarr_array(zarr, 2, (1, 40, 60, 3), (1, 40, 60, 3), order="F")
    with pytest.raises(UnsupportedPictureError, match='order="C"'):
        array[0] = picture
    array = zarr_array(zarr, 3, (1, 40, 60, 3), (1, 40, 60, 3), config={"order": "F"})
    array[:] = np.asfortranarray(picture[None])
    expected = codec().decompress(codec().compress(picture, 40), output="numpy")
    assert np.array_equal(array[0], expected)


@pytest.mark.usefixtures("tiny_as_lite")
def test_zarr_3_metadata_shards_and_what_it_refuses():
    zarr = pytest.importorskip("zarr", minversion="3")
    from sodec.integrations.zarr import SodecCodec

    array = zarr_array(zarr, 3, (80, 120, 3), (40, 60, 3), shards=(80, 120, 3))
    array[:] = photo(120, 80)
    assert np.array_equal(array[:40, 60:], decoded(photo(120, 80)[:40, 60:]))
    assert SodecCodec.from_dict(SodecCodec(30).to_dict()) == SodecCodec(30)
    assert SodecCodec.from_dict({"name": "sodec"}) == SodecCodec()
    assert SodecCodec(30).to_dict() == {"name": "sodec", "configuration": {"quality": 30, "model": "lite"}}
    for shape, chunks, options in (
        ((80, 120, 3), (40, 60, 3), {"dtype": "u2"}),
        ((2, 80, 120, 3), (2, 80, 120, 3), {}),
        ((80,), (80,), {}),
        ((80, 120, 2), (80, 120, 2), {}),
    ):
        with pytest.raises(UnsupportedPictureError, match="must be"):
            zarr_array(zarr, 3, shape, chunks, **options)
    with pytest.raises(QualityError, match="101"):
        SodecCodec(101)
    store = {}
    array = zarr_array(zarr, 3, (40, 60, 3), (40, 60, 3), store)
    array[:] = photo(60, 40)
    (name,) = [name for name in store if name.startswith("c/")]
    store[name] = type(store[name]).from_bytes(codec().compress(photo(30, 20)))
    with pytest.raises(CorruptStreamError, match=r"\(20, 30, 3\), not \(40, 60, 3\)"):
        array[:]


def decoded(chunk):
    return codec().decompress(codec().compress(chunk, 40), output="numpy")


def test_entry_points_name_the_codecs():
    pytest.importorskip("zarr", minversion="3")
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    named = re.findall(r'entry-points."(.+)"\]\nsodec = "(.+):(.+)"', project)
    assert [group for group, _, _ in named] == ["numcodecs.codecs", "zarr.codecs"]
    for _, module, name in named:
        assert getattr(importlib.import_module(module), name).__module__ == module


class Rows(list):
    """Stands in for a Ray dataset."""

    def iter_rows(self):
        return iter(self)


@pytest.fixture
def sodec_ray():
    pytest.importorskip("ray")
    from sodec.integrations import ray

    return ray


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("in/a.jpg", "in/a.sodec"), ("/abs/in/a.jpg", "in/a.sodec"), ("a.jpg", "a.sodec"),
        ("s.tar/deep/a.png", "deep/a.sodec"), ("s.tar/../x.png", "s.tar/x.sodec"),
        ("s.tar/../../x.png", "s.tar/x.sodec"), ("../x.png", "x.sodec"), ("..", None), ("", None), ("s.tar/..", None),
        ("s.tar/a/", None), ("/", None),
        ("s.tar//etc/x.png", "etc/x.sodec"), ("s.tar/./x.png", "s.tar/x.sodec"),
        (r"s.tar/..\..\x.png", "s.tar/x.sodec"), (r"s.tar/C:\x.png", "C_/x.sodec"),
        ("s.tar/C:x.png", "s.tar/C_x.sodec"), ("s.tar/x.png:s.png", "s.tar/x.png_s.sodec"),
        ("s.tar/a\0b.png", None), ("s.tar/a\nb.png", None), ("a\0/b.png", None), ("in/..png", "in/..sodec"),
        ("in/.png", "in/.png.sodec"), (".../a.png", ".../a.sodec"), ("in/Müller 山.png", "in/Müller 山.sodec"),
        ("in/" + "n" * 300 + ".png", None), ("f" * 300 + "/a.png", None),
    ],
)  # fmt: skip
def test_ray_writes_below_its_folder_whatever_the_names(sodec_ray, tmp_path, path, target):
    folder = tmp_path / "deep" / "out"
    errors = sodec_ray.write(Rows([{"path": path, "stream": b"stream", "error": ""}]), folder)
    files = [file for file in tmp_path.rglob("*") if not file.is_dir()]
    assert files == ([] if target is None else [folder / target])
    assert len(errors) == (target is None)
    assert all(error.isprintable() for error in errors)


def test_ray_names_what_is_there_already(sodec_ray, tmp_path):
    rows = Rows(
        {"path": path, "stream": path.encode(), "error": ""} for path in ("in/a.png", "in/a.jpg", "other/in/a.png")
    )
    errors = sodec_ray.write(rows, tmp_path)
    assert len(errors) == 2
    assert all("in/a.png already goes to" in error for error in errors)
    assert (tmp_path / "in" / "a.sodec").read_bytes() == b"in/a.png"
    again = Rows(
        [{"path": "in/a.png", "stream": b"again", "error": ""}, {"path": "b.png", "stream": b"", "error": "bad"}]
    )
    errors = sodec_ray.write(again, tmp_path)
    assert "exists; overwrite=True replaces it" in errors[0]
    assert errors[1] == "b.png: bad"
    assert (tmp_path / "in" / "a.sodec").read_bytes() == b"in/a.png"
    assert sodec_ray.write(Rows(again[:1]), tmp_path, overwrite=True) == []
    assert (tmp_path / "in" / "a.sodec").read_bytes() == b"again"
    (tmp_path / "file").write_bytes(b"")
    assert len(sodec_ray.write(Rows([{"path": "file/a.png", "stream": b"", "error": ""}]), tmp_path)) == 1


def test_ray_ends_where_the_disk_is_full(sodec_ray, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sodec_ray, "write_file", full)
    with pytest.raises(OSError, match="No space"):
        sodec_ray.write(Rows([{"path": "a.png", "stream": b"", "error": ""}]), tmp_path)


def shard(*members, mode="w", **options):
    """A tar with these (name, bytes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_ray_reads_what_is_whole_of_a_shard(sodec_ray):
    def pictures(data):
        return [(row["path"], row["bytes"]) for row in sodec_ray._pictures_of({"path": "s.tar", "bytes": data})]

    both = [("a.png", b"a" * 600), ("notes.txt", b"text"), ("../b.JPG", b"b" * 600)]
    expected = [("s.tar/a.png", b"a" * 600), ("s.tar/../b.JPG", b"b" * 600)]
    assert pictures(shard(*both)) == expected
    assert pictures(shard(*both)[: -10_000 + 1200]) == [expected[0], ("s.tar", b"")]
    assert pictures(b"no tar at all") == [("s.tar", b"")]
    assert pictures(b"") == [("s.tar", b"")]
    assert pictures(shard(*both, mode="w:gz")) == [("s.tar", b"")]
    latin = shard(("M\udcfcller.png", b"a"), format=tarfile.GNU_FORMAT)
    assert pictures(latin) == [("s.tar/M\ufffdller.png", b"a")]
    link = tarfile.TarInfo("c.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as tar:
        tar.addfile(link)
    assert pictures(buffer.getvalue()) == []


def test_ray_names_files_without_bytes(sodec_ray):
    worker = sodec_ray._Compressor({"weights": str(folder())}, {"quality": 30})
    batch = worker({"path": np.array(["s.tar", "b.png"]), "bytes": [b"", b"no picture"]})
    assert batch["stream"] == [b"", b""]
    assert "damaged" in batch["error"][0]
    assert "picture" in batch["error"][1]


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
