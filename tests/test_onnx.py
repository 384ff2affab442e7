"""ONNX graphs: they compute what PyTorch computes, at any size, and hold no weights.

pytest tests/test_onnx.py
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import codec, folder, photo

import sodec
from sodec.cli import main
from sodec.errors import WeightsError
from sodec.weights import find, graphs

pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: onnx)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: onnx)")

from sodec.models import onnx as exporter  # noqa: E402
from sodec.models.files import read_model  # noqa: E402

SCRIPT = Path(__file__).parent.parent / "examples" / "onnx_decode.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder of graphs and weights of the tiny model."""
    path = tmp_path_factory.mktemp("onnx") / "graphs"
    done = CliRunner().invoke(main, ["export-onnx", str(path), "--weights", str(folder())])
    assert done.exit_code == 0, done.output
    assert done.output.count("differs from PyTorch by at most") == len(exporter.PARTS)
    return path


@pytest.mark.parametrize("name", exporter.PARTS)
@pytest.mark.parametrize("cells", [(1, 1), (2, 9), (13, 4)])
def test_graphs_equal_pytorch_at_any_size(exported, name, cells):
    model = read_model(find("", folder())).eval()
    session = ort.InferenceSession(exported / graphs.file_of(name))
    assert exporter.difference(exporter.PARTS[name], model, session, cells) <= exporter.TOLERANCE


def test_a_folder_of_graphs_holds_each_weight_once(exported):
    names = {path.name for path in folder().iterdir()}
    assert {path.name for path in exported.iterdir()} == names | set(map(graphs.file_of, exporter.PARTS))
    tensors = find("", folder()).tensors()
    assert max(array.nbytes for array in tensors.values()) > 1000
    for graph in map(graphs.file_of, exporter.PARTS):
        data = (exported / graph).read_bytes()
        assert tensors.keys() >= set(graphs.weights_of(data)) > set()
        assert len(data) < 100_000
        assert not [name for name, array in tensors.items() if array.nbytes > 1000 and array.tobytes() in data]


@pytest.mark.parametrize("name", exporter.PARTS)
def test_the_packaged_graphs_are_those_of_the_packaged_weights(name):
    bundle = find("lite")
    data = (bundle.folder / graphs.file_of(name)).read_bytes()
    session = graphs.session(data, bundle.tensors())
    assert session.get_modelmeta().custom_metadata_map[graphs.SIZES] == graphs.sizes_of(bundle)
    model = read_model(bundle).eval()
    assert exporter.difference(exporter.PARTS[name], model, session, (5, 6)) <= exporter.TOLERANCE


def test_float16_graphs(tmp_path):
    exporter.export(find("", folder()), tmp_path, float16=True, with_weights=False)
    tensors, model = find("", folder()).tensors(), read_model(find("", folder())).eval()
    for name, part in exporter.PARTS.items():
        data = (tmp_path / graphs.file_of(name)).read_bytes()
        assert exporter.difference(part, model, graphs.session(data, tensors), (5, 6)) < 0.01
    assert {path.suffix for path in tmp_path.iterdir()} == {".onnx"}


def test_a_graph_that_differs_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "TOLERANCE", -1.0)
    with pytest.raises(WeightsError, match="the graph analysis differs from PyTorch by"):
        exporter.export(find("", folder()), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_existing_files_are_kept_unless_asked(exported):
    before = {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}
    done = CliRunner().invoke(main, ["export-onnx", str(exported), "--weights", str(folder())])
    assert done.exit_code == 2
    assert "exists" in done.output
    assert before == {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}


def test_sd21_is_refused(tmp_path):
    from tiny import write_weights

    from sodec.models import SD21_TINY

    bundle = write_weights(tmp_path / "weights", config=SD21_TINY)
    with pytest.raises(WeightsError, match="sd21-tiny can't be exported"):
        exporter.export(bundle, tmp_path / "graphs")


def test_names_of_weights_are_read_without_the_package_onnx(exported):
    import onnx

    for path in exported.glob("*.onnx"):
        names = [tensor.name for tensor in onnx.load(path, load_external_data=False).graph.initializer]
        assert graphs.weights_of(path.read_bytes()) == names
        with pytest.raises(ValueError, match=r"ends within|unknown type"):
            graphs.weights_of(path.read_bytes()[:-100])


def test_the_script_decodes_as_sodec_does(exported, tmp_path, monkeypatch):
    assert len(SCRIPT.read_text().splitlines()) <= 45
    data = codec().compress(photo(200, 150))
    path = tmp_path / "photo.sodec"
    path.write_bytes(data)
    script = f"import sys, runpy; sys.modules['torch'] = None; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    command = [sys.executable, "-c", script, str(exported), str(path)]
    subprocess.run(command, cwd=tmp_path, check=True)
    expected = sodec.Codec(weights=folder(), dtype="float32").decompress(data, output="numpy")
    actual = np.asarray(Image.open(tmp_path / "photo.png"))
    assert np.abs(actual.astype(int) - expected).max() <= 1
