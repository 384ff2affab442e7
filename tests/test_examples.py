"""The examples run as they stand.

pytest tests/test_examples.py
"""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.filterwarnings("ignore")  # of CompressAI's and PyTorch's own
def test_entropy_for_your_model(capsys):
    pytest.importorskip("compressai.entropy_models", reason="CompressAI is not installed (extra: train)")
    path = EXAMPLES / "entropy_for_your_model.py"
    if not path.exists():
        pytest.skip("the tests run without the checkout")
    assert len(path.read_text().splitlines()) < 30
    runpy.run_path(str(path))
    out = capsys.readouterr().out
    size, theirs = (int(part.split()[-1]) for part in (out.split(" bytes")[0], out.split(";")[0]))
    assert size <= 1.006 * theirs  # the states of its lanes, and 16 bits of precision
