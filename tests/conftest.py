"""Triton decides when it is imported whether it interprets, so this comes before any test file: on a machine
without a GPU the kernels' tests run under its interpreter. Tests of their own fixtures live in their own files."""

import os
from pathlib import Path

if not (any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()):
    os.environ.setdefault("TRITON_INTERPRET", "1")
