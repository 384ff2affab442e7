"""Triton decides when it is imported whether it interprets, so this comes before any test file: on a machine
without a GPU the kernels' tests run under its interpreter. Tests of their own fixtures live in their own files."""

import os
import shutil
from pathlib import Path

import pytest

if not (any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()):
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def tiny_as_lite(monkeypatch, tmp_path_factory):
    """The tiny model replaces the bundled one, so that tests call `sodec.compress` as users do."""
    from tiny import folder

    from sodec import api
    from sodec.weights import bundle

    bundled = tmp_path_factory.mktemp("bundled")
    shutil.copytree(folder(), bundled / "lite")
    monkeypatch.setattr(bundle, "BUNDLED", bundled)
    api.kept_codec.cache_clear()
    yield
    api.kept_codec.cache_clear()
