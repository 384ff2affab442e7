"""The engine of ONNX Runtime: everything without PyTorch, and the same pixels.

pytest tests/test_light.py
"""

import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from tiny import codec, folder, photo

import sodec
from sodec.codec import Codec, Report
from sodec.errors import DeviceError, MissingPackageError, WeightsError
from sodec.files import PHOTO
from sodec.pipeline import engines
from sodec.stream import container
from sodec.weights import find, graphs

pytest.importorskip("onnxruntime")

NO_TORCH = "import sys; sys.modules['torch'] = None\n"
VIEWS = [{}, {"mode": "fidelity"}, {"fidelity": 0.4}, {"noise": 0}, {"scale": 1 / 4}, {"region": (100, 90, 120, 77)}]


@pytest.fixture(scope="module")
def both():
    """Codecs of the bundled model with small tiles, by PyTorch in float32 and by ONNX Runtime."""
    return tuple(Codec(engine=engine, dtype="float32", tile=256) for engine in ("torch", "onnx"))


@pytest.fixture(scope="module")
def picture():
    """Larger than one tile of synthesis, of sides that are no multiples of anything."""
    return np.asarray(Image.open(PHOTO).convert("RGB"))[20:345, 30:571]


@pytest.mark.parametrize("view", VIEWS)
def test_pixels_are_those_of_pytorch_within_one(both, picture, view):
    data = both[0].compress(picture, 40)
    wanted, found = (one.decompress(data, output="numpy", **view).astype(int) for one in both)
    assert np.abs(wanted - found).max() <= 1
    assert np.ptp(found) > 100
    report = Report()
    both[1].decompress(data, report=report, **view)
    faithful = view.get("mode") == "fidelity" or "scale" in view
    assert ("fidelity" if faithful else "networks") in report.times


def test_streams_are_those_of_pytorch_but_for_roundings(both, picture):
    """Floats that are a few ulp apart can end at another side of a half, seldom."""
    for options in ({"quality": 30}, {"max_bytes": 3000}):
        first, second = (one.compress(picture, **options) for one in both)
        assert abs(len(first) - len(second)) < 0.01 * len(first)
        pictures = [both[1].decompress(data, output="numpy").astype(float) for data in (first, second)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 0.2


def test_a_released_stream_decodes_to_the_same_picture(both):
    data = next((find("lite").folder.parent.parent.parent / "tests").glob("golden/lite/*.sodec"), None)
    if data is None:
        pytest.skip("the tests of a wheel have no golden streams beside them")
    wanted, found = (one.decompress(data, output="numpy").astype(int) for one in both)
    assert np.abs(wanted - found).max() <= 1


def test_damage_is_filled_alike(both):
    rgb = np.asarray(Image.open(PHOTO).convert("RGB").resize((1100, 120)))
    data = both[0].compress(rgb, 30)
    place = data.index(container.read(data).payloads[1])
    damaged = data[: place + 9] + bytes([data[place + 9] ^ 255]) + data[place + 10 :]
    with pytest.warns(UserWarning, match="1024,0,76,120"):
        wanted, found = (one.decompress(damaged, output="numpy", on_error="conceal").astype(int) for one in both)
    assert np.abs(wanted - found).max() <= 1


def test_threads_share_a_codec(both, picture):
    data, results = both[0].compress(picture, 20), []
    one = Codec(engine="onnx")  # no graph is loaded yet
    threads = [threading.Thread(target=lambda: results.append(one.decompress(data, output="numpy"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, results[0]) for result in results)


def test_everything_runs_without_pytorch(tmp_path):
    """In a process in which it can't be imported."""
    script = NO_TORCH + (
        "import io, warnings, numpy as np, sodec\n"
        "from PIL import Image\n"
        "from sodec.files import PHOTO\n"
        "image = Image.open(PHOTO).convert('RGBA')\n"
        "data = sodec.compress(image, quality=30)\n"
        "assert sodec.decompress(data).mode == 'RGBA'\n"
        "assert sodec.decompress(data, output='numpy', region=(9, 9, 50, 30)).shape == (30, 50, 4)\n"
        "assert sodec.decompress(data, scale=1 / 8).size == (84, 56)\n"
        "small = sodec.compress(PHOTO, max_bytes=2000)\n"
        "assert 1900 < len(small) <= 2000\n"
        "Image.open(PHOTO).convert('L').save('grey.sodec', quality=20)\n"
        "assert Image.open('grey.sodec').convert('L').size == image.size\n"
        "codec = sodec.Codec()\n"
        "assert codec.engine.name == 'onnx'\n"
        "assert 'ONNX Runtime' in str(codec.prepared)\n"
        "assert len(codec.compress([PHOTO, PHOTO], 1)) == 2\n"
        "from sodec.ui.trial import Limits, Wish, open_upload, run_trial\n"
        "upload = open_upload('a.png', PHOTO.read_bytes(), Limits())\n"
        "assert 'PSNR, dB' in run_trial(codec, upload, Wish(quality=30)).metrics\n"
        "assert 'torch' not in {name.partition('.')[0] for name, value in sys.modules.items() if value}\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_commands_run_without_pytorch(tmp_path):
    shutil.copyfile(PHOTO, tmp_path / "one.png")
    Image.open(PHOTO).crop((0, 0, 90, 60)).save(tmp_path / "two.png")

    def sodec_command(*arguments, code=0):
        script = NO_TORCH + "from sodec.cli import main; main()"
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    sodec_command("compress", "one.png", "two.png", "-o", "streams", "-q", "10")
    sodec_command("decompress", "streams", "-o", "pictures", "--tile", "256", "--threads", "1")
    assert Image.open(tmp_path / "pictures" / "one.png").size == Image.open(PHOTO).size
    assert "by ONNX Runtime" not in sodec_command("info", "streams/one.sodec")
    assert "decode" in sodec_command("demo", "two.png")
    for command in (["eval", "one.png"], ["bench"], ["export-onnx", "graphs"]):
        assert (
            sodec_command(*command, code=2).strip() == "sodec: this command needs PyTorch: pip install 'sodec[torch]'"
        )
    assert "pip install 'sodec[torch]'" in sodec_command("compress", "one.png", "x.sodec", "--device", "cuda", code=2)


def test_an_engine_is_chosen_for_what_it_can_serve(monkeypatch):
    lite, tiny = find("lite"), find("", folder())
    assert engines.chosen(tiny, "cpu", "auto") == "torch", "there are no graphs of these sizes"
    assert engines.chosen(lite, "cuda", "auto") == "torch"
    assert engines.chosen(lite, "cpu", "bfloat16") == "torch"
    assert engines.chosen(lite, "cpu", "auto", cuda_graphs=True) == "torch"
    for installed, fast, wanted in ((True, True, "torch"), (True, False, "onnx"), (False, True, "onnx")):
        monkeypatch.setattr(engines, "has_torch", lambda installed=installed: installed)
        monkeypatch.setattr(engines, "has_bfloat16", lambda fast=fast: fast)
        assert engines.chosen(lite, "cpu", "auto") == wanted
        assert engines.chosen(lite, "cpu", "float32") == ("torch" if installed else "onnx")
    assert engines.chosen(tiny, "cpu", "auto") == "torch", "whose error says what to install"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"engine": "tf"}, "engine must be one of auto, torch, onnx"), ({"device": "cuda"}, "device must be cpu"),
        ({"dtype": "bfloat16"}, "dtype must be one of auto, float32"), ({"cuda_graphs": True}, "CUDA device"),
    ],
)  # fmt: skip
def test_what_the_engine_has_not_is_named(options, named):
    with pytest.raises(DeviceError, match=named):
        Codec(**{"engine": "onnx", **options})


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(engines, "has_torch", lambda: False)
    for options, named in (
        ({"engine": "torch"}, "engine 'torch'"), ({"device": "cuda"}, "device 'cuda'"),
        ({"dtype": "float16"}, "dtype 'float16'"), ({"weights": folder()}, "has no ONNX graphs"),
    ):  # fmt: skip
        with pytest.raises(MissingPackageError, match=rf"{named}.* needs PyTorch: pip install 'sodec\[torch\]'"):
            Codec(**options)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match="onnxruntime"):
        Codec()


def test_networks_themselves_need_pytorch(both):
    with pytest.raises(DeviceError, match="engine='torch'"):
        both[1].model  # noqa: B018
    with pytest.raises(DeviceError, match="engine='torch'"):
        both[1].latents(both[0].compress(photo(20, 20)))
    assert codec().model is codec().engine.model


@pytest.fixture
def weights(tmp_path):
    """The bundled weights with graphs of their own, to be damaged."""
    copied = shutil.copytree(find("lite").folder, tmp_path / "lite")
    return copied


def test_weights_of_the_packages_sizes_need_no_graphs_of_their_own(weights):
    for path in weights.glob("*.onnx"):
        path.unlink()
    assert graphs.find(find("", weights))["decoder"].parent == find("lite").folder
    assert sodec.decompress(sodec.compress(photo(40, 30), weights=weights, engine="onnx"), engine="onnx").size == (
        40,
        30,
    )


def test_a_folder_whose_graphs_are_of_other_sizes_is_refused(tmp_path):
    other = shutil.copytree(folder(), tmp_path / "tiny")
    shutil.copyfile(find("lite").folder / "decoder.onnx", other / "decoder.onnx")
    with pytest.raises(WeightsError, match="sodec export-onnx"):
        Codec(weights=other, engine="onnx")


@pytest.mark.parametrize("damage", [lambda data: data[:-200], lambda data: data[:2000] + b"\xff" * 40 + data[2040:]])
def test_a_damaged_graph_is_named(weights, damage):
    data = Codec(engine="onnx").compress(photo(40, 30))
    path = weights / "fidelity.onnx"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"fidelity\.onnx"):
        Codec(weights=weights, engine="onnx").decompress(data, mode="fidelity")


def test_working_memory_that_another_program_shares_already_is_used(monkeypatch):
    def registered_already(*_):
        raise RuntimeError("An allocator for this device has already been registered for sharing.")

    data = Codec(engine="onnx").compress(photo(40, 30))
    monkeypatch.setattr(graphs.runtime(), "create_and_register_allocator", registered_already)
    graphs._share_memory.cache_clear()
    assert Codec(engine="onnx").decompress(data).size == (40, 30)


def test_memory_that_runs_out_is_a_device_error(both, monkeypatch):
    class Full:
        def run(self, *_):
            raise Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for 9 bytes")

    data = both[0].compress(photo(400, 300))
    monkeypatch.setattr(both[1].engine, "session", lambda graph: Full())
    with pytest.raises(DeviceError, match="smaller tile"):
        both[1].decompress(data)
    monkeypatch.setattr("sodec.pipeline.onnx_engine.memory.free", lambda: 3_000_000)
    with pytest.raises(DeviceError, match=r"decoding .* takes"):
        both[1].decompress(data)
    with pytest.raises(DeviceError, match=r"encoding .* takes"):
        both[1].compress(photo(400, 300))
