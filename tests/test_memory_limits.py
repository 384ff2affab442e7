"""Limits of memory: control groups and `ulimit -v` are read, and whatever runs out is one kind of error.

pytest tests/test_memory_limits.py
"""

import subprocess
import sys

import pytest
import torch
from tiny import codec, folder, photo

import sodec
from sodec import memory
from sodec.errors import CorruptStreamError, DeviceError

MEMINFO = "MemTotal:       9000 kB\nMemAvailable:   5000 kB\n"
UNLIMITED = 9223372036854771712


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that describes a machine, as /proc and the control groups would, and returns what is free there."""

    def describe(*, groups, mounts, files, meminfo=MEMINFO, pages=0):
        proc = tmp_path / "proc"
        (proc / "self").mkdir(parents=True, exist_ok=True)
        (proc / "meminfo").write_text(meminfo)
        (proc / "self" / "statm").write_text(f"{pages} 1 1")
        (proc / "self" / "cgroup").write_text(groups)
        (proc / "self" / "mountinfo").write_text(mounts.format(tmp=tmp_path))
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        monkeypatch.setattr(memory, "PROC", proc)
        memory._group_files.cache_clear()
        return memory.free()

    yield describe
    memory._group_files.cache_clear()


V2 = "30 23 0:26 / {tmp}/cg rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:30 / {tmp}/cg/cpu rw - cgroup cgroup rw,cpu\n34 31 0:32 / {tmp}/cg/memory rw - cgroup cgroup rw,memory\n"


def v2(folder, limit, usage, inactive=0):
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{usage}\n",
        f"{folder}/memory.stat": f"anon 1\ninactive_file {inactive}\n",
    }


def v1(folder, limit, usage, inactive=0):
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": usage,
        f"{folder}/memory.stat": f"inactive_file 7\ntotal_inactive_file {inactive}\n",
    }


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "expected"),
    [
        ("", "", {}, 5_120_000),
        ("0::/a\n", V2, v2("cg/a", 1_000_000, 400_000), 600_000),
        ("0::/a\n", V2, v2("cg/a", 1_000_000, 400_000, 300_000), 900_000),
        ("0::/a\n", V2, v2("cg/a", "max", 400_000), 5_120_000),
        ("0::/a/b\n", V2, v2("cg/a/b", "max", 1) | v2("cg/a", 1_000_000, 999_990), 10),  # of the group around
        ("0::/a/b\n", V2, v2("cg/a/b", 500_000, 1) | v2("cg/a", 1_000_000, 2), 499_999),
        ("0::/\n", V2, v2("cg", 700_000, 800_000), 0),  # beyond its limit already
        ("0::/elsewhere\n", V2, v2("cg", 700_000, 100_000), 600_000),  # a container that sees its own group as root
        ("0::/docker/x/y\n", V2.replace(" / {tmp}", " /docker/x {tmp}"), v2("cg/y", 700_000, 0), 700_000),
        ("5:cpu:/c\n4:memory:/m\n", V1, v1("cg/memory/m", 800_000, 300_000, 100_000), 600_000),
        ("4:memory:/m\n", V1, v1("cg/memory/m", UNLIMITED, 1) | v1("cg/memory", 300_000, 1), 299_999),
        ("4:memory:/m\n", V1, v1("cg/memory/m", UNLIMITED, 1), 5_120_000),
        ("4:memory:/m\n0::/a\n", V1 + V2, v1("cg/memory/m", 9_000, 1) | v2("cg/a", 8_000, 1), 7_999),
        ("0::/a\n", V2, v2("cg/a", "damaged", 1), 5_120_000),
        ("0::/a\n", V2, {"cg/a/memory.max": 5}, 5_120_000),
    ],
)
def test_what_control_groups_leave(machine, groups, mounts, files, expected):
    assert machine(groups=groups, mounts=mounts, files=files) == expected


def test_what_a_limit_on_addresses_leaves(machine, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1_000_000, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "getpagesize", lambda: 4096)
    assert machine(groups="", mounts="", files={}, pages=100) == 1_000_000 - 409_600


def test_nothing_known_is_no_limit(machine):
    assert machine(groups="", mounts="", files={}, meminfo="") is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_runs_out_anywhere_is_a_device_error(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    data = codec().compress(photo(20, 20))
    for place, call in (
        ("sodec.pipeline.engine.Engine.begin_analysis", lambda: codec().compress(photo(20, 20))),
        ("sodec.picture.load", lambda: sodec.compress(photo(20, 20), weights=folder())),
        ("sodec.pipeline.torch_engine.TorchEngine.synthesise_all", lambda: codec().decompress(data)),
        ("sodec.stream.container.parse", lambda: sodec.decompress(data, weights=folder())),
        ("sodec.stream.container.parse", lambda: sodec.inspect(data)),
        ("sodec.models.model.SodecModel.__init__", lambda: sodec.Codec(weights=folder())),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            with pytest.raises(DeviceError, match=r"memory does not suffice.*--tile") as raised:
                call()
            assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: unspecified launch failure",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
    ],
)
def test_a_device_that_is_lost_is_a_device_error(monkeypatch, text):
    error = RuntimeError(text)

    def fail(*args, **kwargs):
        raise error

    data = codec().compress(photo(20, 20))
    engine = "sodec.pipeline.torch_engine.TorchEngine"
    for place, call in (
        (f"{engine}.coefficients", lambda: codec().compress(photo(20, 20))),
        (f"{engine}.quantise", lambda: sodec.compress([photo(20, 20)], weights=folder())),
        (f"{engine}.dequantise_all", lambda: codec().decompress(data)),
        (f"{engine}.synthesise_all", lambda: sodec.decompress([data], weights=folder())),
        (f"{engine}.fetched", lambda: codec().decompress([data, data])),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            with pytest.raises(DeviceError, match=r"the device failed or was lost: (CUDA|cuDNN) error") as raised:
                call()
            assert raised.value.__cause__ is error
            assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("some other fault"), CorruptStreamError("out of memory, it says")])
def test_other_errors_stay_what_they_are(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("sodec.pipeline.engine.Engine.begin_analysis", fail)
    with pytest.raises(type(error), match=str(error)):
        codec().compress(photo(20, 20))


def test_a_picture_that_does_not_fit_is_named_before_it_is_decoded(monkeypatch):
    data = codec().compress(photo(70, 50))
    monkeypatch.setattr(memory, "free", lambda: 3 * 70 * 50 - 1)
    monkeypatch.setattr(memory, "LITTLE", 0)
    with pytest.raises(DeviceError, match=r"a picture of 70x50 pixels takes 0\.00 GB.*a region or a scale takes less"):
        codec().decompress(data)


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is Linux's")
@pytest.mark.parametrize("gigabytes", [0.7, 1.5])
def test_too_few_addresses_for_torch_are_one_line(tmp_path, gigabytes):
    script = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({int(gigabytes * 1e9)},) * 2)\n"
        "import sys; from sodec.cli import main; sys.argv[0] = 'sodec'\n"
        "sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("sodec: ")
    assert done.stderr.count("\n") == 1
    assert "ulimit -v" in done.stderr or "memory does not suffice" in done.stderr


def test_freed_memory_is_kept_where_there_is_plenty(monkeypatch):
    """And given back at once where there is little."""
    asked = []
    monkeypatch.setattr(memory, "_mallopt", lambda: lambda option, value: asked.append((option, value)))
    monkeypatch.setattr(memory, "_of_machine", lambda: memory.SHORT)
    memory.keep_freed()
    assert asked == [(memory.M_MMAP_THRESHOLD, 1 << 25), (memory.M_TRIM_THRESHOLD, memory.KEPT)]
    asked.clear()
    monkeypatch.setattr(memory, "_of_machine", lambda: memory.SHORT - 1)
    memory.keep_freed()
    assert asked == [(memory.M_MMAP_THRESHOLD, memory.MAPPED_FROM), (memory.M_TRIM_THRESHOLD, memory.MAPPED_FROM)]
    monkeypatch.setattr(memory, "_mallopt", lambda: None)  # elsewhere than with glibc
    memory.keep_freed()
