"""Every code block of README.md and docs/ runs, page by page and in order. The tiny model replaces the bundled one.

A comment before a block says why it can't run, `<!-- not run: reason -->`, or which optional packages it needs,
`<!-- needs: zarr -->`. Each line of a shell block is a command of sodec; `<` and `>` work.

pytest tests/test_docs.py
"""

import doctest
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import codec, photo

import sodec
from sodec import api, weights
from sodec.cli import main

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the tests of a wheel have no docs beside them")


def blocks(page):
    """Language, code and line of the blocks to run; a block that is left out has a reason."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        mark, language = found["mark"] or "", found["language"]
        line = text.count("\n", 0, found.start("code")) + 1
        if language not in ("python", "bash"):
            assert language in ("", "text"), f"{page.name}:{line} is of language {language!r}"
        elif mark.startswith("not run:"):
            assert mark.removeprefix("not run:").strip(), f"{page.name}:{line} is not run, and does not say why"
        elif all(map(importlib.util.find_spec, mark.removeprefix("needs: ").split(", ") if mark else [])):
            yield language, found["code"], line


def run_in_shell(command):
    """One line of a shell block, in this process."""
    words = shlex.split(command, comments=True)
    given, wanted = b"", None
    if ">" in words:
        words, wanted = words[: words.index(">")], words[words.index(">") + 1]
    if "<" in words:
        words, given = words[: words.index("<")], Path(words[words.index("<") + 1]).read_bytes()
    assert words[0] == "sodec", f"{command} is no command of sodec, so its block is to say why it is not run"
    done = CliRunner().invoke(main, words[1:], input=given)
    assert done.exit_code == 0, f"{command}: {done.output}"
    if wanted:
        Path(wanted).write_bytes(done.stdout_bytes)


@pytest.fixture
def folder(tiny_as_lite, tmp_path, monkeypatch):
    """The files that the pages use: a photo, a folder of photos, a damaged stream."""
    Image.fromarray(photo(700, 420)).save(tmp_path / "photo.jpg", quality=95)
    (tmp_path / "holiday").mkdir()
    for seed, name in enumerate(("beach", "hill")):
        Image.fromarray(photo(200, 150, seed)).save(tmp_path / "holiday" / f"{name}.jpg", quality=95)
    (tmp_path / "damaged.sodec").write_bytes(codec().compress(photo(1100, 64))[:-8])
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore")  # of the packages of extras
@pytest.mark.parametrize("page", [page for page in PAGES if list(blocks(page))], ids=lambda page: page.name)
def test_blocks_run(page, folder, monkeypatch):
    names = {"__name__": "__main__"}
    for language, code, line in blocks(page):
        if language == "python":
            exec(compile("\n" * (line - 1) + code, page.name, "exec"), names)
        else:
            for command in code.replace("\\\n", "").splitlines():
                run_in_shell(command)


def test_examples_of_docstrings_run(folder):
    data = sodec.compress("photo.jpg")
    Path("photo.sodec").write_bytes(data)
    found = doctest.DocTestFinder().find(api, globs={"sodec": sodec, "data": data})
    if importlib.util.find_spec("zarr"):
        import zarr

        from sodec.integrations import numcodecs
        from sodec.integrations import zarr as zarr_3

        for module in (numcodecs, zarr_3):
            found += doctest.DocTestFinder().find(module, globs={**vars(module), "zarr": zarr})
    runner = doctest.DocTestRunner()
    results = [runner.run(examples) for examples in found]
    assert sum(result.attempted for result in results) >= 4
    assert not sum(result.failed for result in results)


def test_the_pictures_are_of_the_bundled_weights():
    printed = (DOCS / "pictures" / "info.txt").read_text(encoding="utf-8")
    bundle = weights.find("lite")
    expected = f"model lite {bundle.version}, coding {bundle.fingerprint.hex()},"
    assert expected in printed, "the weights are new: python docs/pictures.py"


def test_the_site_builds_and_fetches_nothing(tmp_path):
    for module in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="the site's tools are not installed (extra: docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//|<link[^>]*stylesheet[^>]*//[\w-]+\.")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert (tmp_path / "site" / "FORMAT.html") in pages
    assert not [page.name for page in pages if loaded.search(page.read_text(encoding="utf-8"))]
