"""The notebook of examples/ runs from first to last cell, its assertions hold, and it is stored without outputs.

pytest tests/test_walkthrough.py
"""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "walkthrough.ipynb"

pytestmark = pytest.mark.skipif(not NOTEBOOK.is_file(), reason="the tests of a wheel have no examples beside them")


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_the_notebook_runs(tmp_path):
    client = pytest.importorskip("nbclient", reason="nbclient is not installed (extra: docs)")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells)
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert shown == sum("show(" in cell.source and "def show" not in cell.source for cell in cells) + 1
