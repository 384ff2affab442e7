"""sodec inside Ray Data, where it is installed.

pytest tests/test_ray.py
"""

import errno
import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from tiny import codec, folder, photo

from sodec.errors import OutputError
from sodec.integrations import output as output_of
from sodec.picture import suffixes

PICTURES, STREAMS = suffixes(), frozenset({".sodec"})


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
