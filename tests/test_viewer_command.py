"""`sodec viewer`: the folder that it writes, and its errors."""

import json
import shutil
import zlib

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load
from viewing import runtime

from sodec.cli import main
from sodec.errors import MissingPackageError, OutputError, WeightsError
from sodec.pages import viewer
from sodec.weights import find, graphs

__all__ = ["runtime"]  # a fixture


def test_the_page_s_own_files_are_complete_and_no_more():
    files = viewer.page_files()
    assert {"index.html", "page.js", "sodec-img.js", "worker.js", "format/container.js"} <= files.keys()
    assert not [name for name in files if "test" in name or name.startswith("node/")]


def test_weights_are_those_that_the_graphs_name_and_at_most_20_mb():
    files = viewer.weights_files(find("lite"))
    manifest = json.loads(files["weights.json"])
    listed = [manifest["coding"], *manifest["tensors"], *manifest["graphs"].values()]
    assert {one["path"] for one in listed} == files.keys() - {"weights.json"}
    assert all(len(files[one["path"]]) == one["bytes"] for one in listed)
    assert sum(one["bytes"] for one in listed) <= 20e6
    for name, graph in manifest["graphs"].items():
        tensors = {}
        for part in manifest["tensors"][: graph["tensors"]]:
            planes = np.frombuffer(zlib.decompress(files[part["path"]]), np.uint8)
            tensors |= load(planes.reshape(2, -1).T.tobytes())
        needed = graphs.weights_of(files[f"weights/{name}.onnx"])
        assert needed
        assert all(np.array_equal(tensors[tensor], find("lite").tensors()[tensor]) for tensor in needed)
        assert not [tensor for tensor in tensors if tensor.startswith("analysis.")]


def test_without_npm_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(viewer.shutil, "which", lambda name: None)
    with pytest.raises(MissingPackageError, match="--onnxruntime"):
        viewer.assemble(tmp_path / "site", find("lite"))
    assert not (tmp_path / "site").exists()
    with pytest.raises(MissingPackageError, match=r"ort\.wasm\.min\.mjs"):
        viewer.assemble(tmp_path / "site", find("lite"), runtime=tmp_path)


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(OutputError, match=r"index\.html"):
        viewer.assemble(tmp_path, find("lite"), runtime=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_the_command_writes_the_page_once(runtime, tmp_path):
    command = ["viewer", str(tmp_path / "site"), "--onnxruntime", str(runtime)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert f"weights of lite {find('lite').version}" in done.output
    site = tmp_path / "site"
    written = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    expected = viewer.page_files() | viewer.weights_files(find("lite"))
    assert written == expected.keys() | {f"onnxruntime/{name}" for name in viewer.RUNTIME_FILES}
    again = CliRunner().invoke(main, command)
    assert (again.exit_code, "exists" in again.output) == (2, True)
    assert CliRunner().invoke(main, [*command, "--overwrite"]).exit_code == 0


def test_graphs_that_name_files_of_weights_are_not_used(tmp_path):
    """A browser has no such files; those of the package serve all weights of the same sizes."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: onnx)")
    from tiny import folder

    from sodec.models.onnx import export
    from sodec.weights import resolve

    lite = shutil.copytree(find("lite").folder, tmp_path / "lite", ignore=shutil.ignore_patterns("*.onnx"))
    export(find("", folder()), tmp_path / "tiny")
    assert viewer.weights_files(resolve("lite", lite)) == viewer.weights_files(find("lite"))
    with pytest.raises(WeightsError, match="--without-weights"):
        viewer.weights_files(resolve("lite", tmp_path / "tiny"))
    export(find("", folder()), tmp_path / "tiny", with_weights=False, overwrite=True)
    assert "weights/decoder.onnx" in viewer.weights_files(resolve("lite", tmp_path / "tiny"))
    (tmp_path / "tiny/decoder.onnx").unlink()
    with pytest.raises(WeightsError, match="has no graph decoder"):
        viewer.weights_files(resolve("lite", tmp_path / "tiny"))


def test_weights_without_graphs_are_refused():
    from tiny import folder

    from sodec.weights import resolve

    with pytest.raises(WeightsError, match="export-onnx"):
        viewer.weights_files(resolve("lite", folder()))
