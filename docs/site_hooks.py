"""mkdocs runs this while it builds the site, which is the repository with docs/ lifted to its root.

Pages that live elsewhere join it, links between files are turned to links between pages; the examples, the notebook
and the command line's help become pages of their own. So every text stands once, and links work in the repository too.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from sodec.cli import main as command_line
from sodec.errors import MissingPackageError
from sodec.pages import viewer
from sodec.weights import find

log = logging.getLogger("mkdocs.hooks.sodec")
ELSEWHERE = ("FORMAT.md", "MODEL_CARD.md", "CHANGELOG.md")
EXAMPLES, NOTEBOOK, COMMANDS = "examples.md", "walkthrough.md", "command-line.md"
LANGUAGES = {".py": "python", ".sh": "bash"}
LINK = re.compile(r"\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
SHOWN = re.compile(r'^show\("(\w+)"', re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in docs/."""
    root = Path(config.docs_dir).parent
    for name in ELSEWHERE:
        files.append(File.generated(config, name, abs_src_path=str(root / name)))
    files.append(File.generated(config, EXAMPLES, content=_examples(root / "examples")))
    files.append(File.generated(config, NOTEBOOK, content=_notebook(root)))
    files.append(File.generated(config, COMMANDS, content=_commands()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns links to files of the repository to links to pages of the site."""
    folder = "" if page.file.src_uri in ELSEWHERE else "examples" if page.file.src_uri == EXAMPLES else "docs"

    def turned(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link["path"]))
        return f"]({_address(path)}{link['anchor'] or ''})"

    return LINK.sub(turned, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Puts the viewer beside the pages. Without npm the site has none, and its link leads nowhere."""
    build = Path(config.docs_dir).parent / "build"
    try:
        runtime = viewer.kept_runtime(build)
    except MissingPackageError as error:
        log.info("the site has no viewer: %s", error)
        return
    viewer.assemble(Path(config.site_dir) / "viewer", find("lite"), runtime=runtime, overwrite=True, say=log.info)


def _address(path: str) -> str:
    """Where a file of the repository is on the site; all pages lie in its root."""
    folder, _, name = path.partition("/")
    if folder != "examples":
        return path.removeprefix("docs/")
    if name == "walkthrough.ipynb":
        return NOTEBOOK
    return EXAMPLES if name == "README.md" else f"{EXAMPLES}#{name.replace('.', '')}"


def _commands() -> str:
    """What `--help` says, of each command."""
    whole = click.Context(command_line, info_name="sodec", **command_line.context_settings)
    text = "# Command line\n\nWhat `--help` says. Errors are one line on stderr and exit code 2. "
    text += "Ctrl-C ends a folder's run with exit code 130, and the same command goes on from there.\n"
    for name in command_line.list_commands(whole):
        command = command_line.get_command(whole, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=whole, terminal_width=80) as context:
            text += f"\n## sodec {name}\n\n```text\n{command.get_help(context)}\n```\n"
    return text


def _examples(folder: Path) -> str:
    """The list of examples, and then each in full."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    for path in sorted(folder.iterdir()):
        if path.suffix in LANGUAGES:
            text += f"\n## {path.name}\n\n```{LANGUAGES[path.suffix]}\n{path.read_text(encoding='utf-8')}```\n"
    return text


def _notebook(root: Path) -> str:
    """The cells, and what docs/pictures.py kept of running them: lines printed and pictures shown."""
    printed = iter(json.loads((root / "docs" / "pictures" / "printed.json").read_text(encoding="utf-8")))
    parts = []
    for cell in json.loads((root / "examples" / "walkthrough.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        if lines := next(printed):
            parts.append(f"```text\n{lines}```")
        parts += [f"![{name}](pictures/{name}.jpg){{ width=420 }}" for name in SHOWN.findall(source)]
    return "\n\n".join(parts) + "\n"
