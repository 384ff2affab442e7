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

from sodec.errors import CorruptStreamError, OutputError, QualityError, UnsupportedPictureError
from sodec.integrations import output as output_of
from sodec.picture import suffixes

PICTURES, STREAMS = suffixes(), frozenset({".sodec"})


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

    def map_batches(self, function, batch_size, **_):
        made = []
        for first in range(0, len(self), batch_size):
            rows = self[first : first + batch_size]
            batch = function({name: np.array([row[name] for row in rows], object) for name in rows[0]})
            made += [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        return Rows(made)


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


def test_ray_names_two_files_of_one_name_and_leaves_what_is_there(sodec_ray, tmp_path):
    rows = Rows(
        {"path": path, "stream": path.encode(), "error": ""} for path in ("in/a.png", "in/a.jpg", "other/in/a.png")
    )
    for _ in range(2):  # also where the job goes on
        errors = sodec_ray.write(rows, tmp_path)
        assert len(errors) == 2
        assert all("in/a.png already goes to" in error for error in errors)
        assert (tmp_path / "in" / "a.sodec").read_bytes() == b"in/a.png"
    again = Rows(
        [{"path": "in/a.png", "stream": b"again", "error": ""}, {"path": "b.png", "stream": b"", "error": "bad"}]
    )
    assert sodec_ray.write(again, tmp_path) == ["b.png: bad"]
    assert (tmp_path / "in" / "a.sodec").read_bytes() == b"in/a.png"
    assert sodec_ray.write(Rows(again[:1]), tmp_path, overwrite=True) == []
    assert (tmp_path / "in" / "a.sodec").read_bytes() == b"again"
    (tmp_path / "file").write_bytes(b"")
    assert len(sodec_ray.write(Rows([{"path": "file/a.png", "stream": b"", "error": ""}]), tmp_path)) == 1


@pytest.fixture(params=["local", "memory", "pyarrow"])
def place(request, tmp_path):
    """A folder's name, and a function that gives its files."""
    fsspec = pytest.importorskip("fsspec")
    if request.param == "memory":
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        yield "memory://out", lambda: {name.removeprefix("/out/"): memory.cat(name) for name in memory.find("/out")}
        memory.store.clear()
        return
    name = str(tmp_path / "out") if request.param == "local" else f"file://{tmp_path}/out"
    yield name, lambda: {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*") if path.is_file()
    }  # fmt: skip


def test_workers_write_to_any_filesystem_and_go_on_where_they_were(sodec_ray, place):
    folder_name, files = place
    output = sodec_ray.Output(folder_name, ".sodec")
    worker = sodec_ray._Compressor({"weights": str(folder())}, {"quality": 30}, output)
    Image.fromarray(photo(30, 20)).save(buffer := io.BytesIO(), "PNG")
    batch = {
        "path": np.array(["in/a.png", "in/bad.png", "b.png", ".."]),
        "bytes": [buffer.getvalue(), b"no picture", buffer.getvalue(), buffer.getvalue()],
    }
    expected = codec().compress(photo(30, 20), 30)
    found = worker(batch)
    assert list(found["status"]) == ["written", "failed", "written", "failed"]
    assert list(found["bytes"]) == [len(expected), 0, len(expected), 0]
    assert [bool(error) for error in found["error"]] == [False, True, False, True]
    assert files() == {"in/a.sodec": expected, "b.sodec": expected}, "nothing else, no part of a file"
    worker.converted = lambda data: pytest.fail("it is there")
    batch["bytes"][1] = b""
    assert list(worker(batch)["status"]) == ["skipped", "failed", "skipped", "failed"]
    output.overwrite = True
    worker.converted = lambda data: b"again"
    assert list(worker(batch)["status"]) == ["written", "failed", "written", "failed"]
    assert files() == {"in/a.sodec": b"again", "b.sodec": b"again"}


def test_a_file_that_another_worker_writes_meanwhile_stays(sodec_ray, place):
    folder_name, files = place
    output = sodec_ray.Output(folder_name, ".sodec")
    target = output.target("in/a.png")

    def make():
        assert output.write(target, b"the other's")
        return b"mine", ""

    assert sodec_ray._put(output, "in/a.png", make) == (target, "skipped", 0, "")
    assert files() == {"in/a.sodec": b"the other's"}


def test_a_write_that_fails_leaves_nothing(sodec_ray, place, monkeypatch):
    folder_name, files = place
    output = sodec_ray.Output(folder_name, ".sodec")

    def failing(*_):
        raise OSError(5, "Input/output error")

    if "://" in folder_name:
        filesystem, _ = output_of.remote(output.folder)
        failing_fs = type("Failing", (), {"move": failing, "__getattr__": lambda _, name: getattr(filesystem, name)})
        monkeypatch.setattr(output_of, "remote", lambda url: (failing_fs(), _))
    else:
        monkeypatch.setattr("sodec.files.os.fsync", failing)
    _, status, _, error = sodec_ray._put(output, "in/a.png", lambda: (b"data", ""))
    assert status == "failed"
    assert "Input/output error" in error
    assert files() == {}


def test_unknown_filesystems_are_named_before_anything_runs(sodec_ray):
    with pytest.raises(OutputError, match="nowhere://x: no filesystem of this kind"):
        sodec_ray.compress(Rows(), to="nowhere://x")


def test_streams_become_files_of_any_format(sodec_ray, tmp_path):
    output = sodec_ray.Output(tmp_path, ".jpg")
    worker = sodec_ray._Decompressor({"weights": str(folder())}, {"mode": "fidelity"}, output, "JPEG")
    data = codec().compress(photo(30, 20))
    found = worker({"path": np.array(["in/a.sodec", "in/b.sodec"]), "bytes": [data, data[:-1]]})
    assert list(found["status"]) == ["written", "failed"]
    assert Image.open(tmp_path / "in" / "a.jpg").size == (30, 20)
    rows = list(sodec_ray._files_of({"path": "s.tar", "bytes": shard(("a.sodec", data), ("b.png", b"x"))}, STREAMS))
    assert rows == [{"path": "s.tar/a.sodec", "bytes": data}]
    with pytest.raises(OutputError, match=r"\.xyz"):
        sodec_ray.decompress(Rows(), suffix=".xyz")


def test_a_worker_takes_a_gpu_where_the_codec_asks_for_one(sodec_ray):
    class Noting:
        def map_batches(self, worker, **options):
            return options["num_gpus"]

    for codec_arguments, asked, expected in (
        ({}, None, None), ({"device": "cuda"}, None, 1), ({"device": "cuda:0"}, 0.5, 0.5), ({"device": "cpu"}, 0, None)
    ):  # fmt: skip
        assert sodec_ray.compress(Noting(), codec=codec_arguments, num_gpus=asked) == expected


def test_ray_ends_where_the_disk_is_full(sodec_ray, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output_of, "write_file", full)
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
        return [(row["path"], row["bytes"]) for row in sodec_ray._files_of({"path": "s.tar", "bytes": data}, PICTURES)]

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
    worker = sodec_ray._Compressor({"weights": str(folder())}, {"quality": 30}, None)
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
    arguments = {"workers": 2, "codec": {"weights": str(folder())}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        pictures = sodec_ray.read(str(tmp_path / "in"))
        errors = sodec_ray.write(sodec_ray.compress(pictures, quality=30, **arguments), tmp_path / "out")
        done = sodec_ray.compress(pictures, to=tmp_path / "direct", quality=30, **arguments)
        assert sodec_ray.errors(done) == errors
        back = sodec_ray.decompress(
            sodec_ray.read(str(tmp_path / "direct"), streams=True), to=tmp_path / "back", **arguments
        )
        assert sodec_ray.errors(back) == []
    finally:
        ray.shutdown()
    assert len(errors) == 1
    assert "bad.jpg" in errors[0]
    for made, suffix in (("out", "sodec"), ("direct", "sodec"), ("back", "png")):
        found = {path.relative_to(tmp_path / made).as_posix(): path for path in (tmp_path / made).rglob("*.*")}
        assert set(found) == {f"{name}.{suffix}" for name in ("in/0", "in/1", "in/2", "deep/9")}
    stream = codec().compress(photo(30, 20, 9), 30)
    assert (tmp_path / "direct" / "deep" / "9.sodec").read_bytes() == stream
    expected = codec().decompress(stream, output="numpy")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "back" / "deep" / "9.png")), expected)
