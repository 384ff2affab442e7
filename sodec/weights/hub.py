"""Where weights are: a folder, or a commit of a repository on the Hugging Face hub, fetched once into its cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import WeightsError

PREFIX = "hf:"
COMMIT = re.compile(r"hf:([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
FORM = "hf:OWNER/NAME@COMMIT, with the 40 hexadecimal digits of a commit"
PATTERNS = ("*.json", "*.safetensors")  # never a pickle


def located(source: str | Path, patterns: Sequence[str] = PATTERNS) -> Path:
    """The folder of weights that `source` names.

    Parameters
    ----------
    source
        A path, or "hf:owner/name@commit": only what begins with "hf:" is asked of the hub. A branch or tag is refused,
        since the weights under it can change.
    patterns
        Files of the repository that are fetched.

    Raises
    ------
    WeightsError
        There is no such path, no commit is named, or the hub can't be asked or has no such commit.
    """
    name = source.as_posix() if isinstance(source, Path) else source
    if not name.startswith(PREFIX):
        if not Path(source).exists():
            raise WeightsError(f"there is no folder {name} (a repository on the Hugging Face hub is {FORM})")
        return Path(source)
    match = COMMIT.fullmatch(name)
    if match is None:
        raise WeightsError(f"{name} names no commit of the Hugging Face hub: it must be {FORM}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise WeightsError(f"{name} needs the package huggingface_hub: pip install 'sodec[hub]'") from None
    repository, revision = match.groups()
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # of many kinds: no network, no such repository, no right to it
        first_line = (str(error).strip().splitlines() or [""])[0]
        raise WeightsError(f"{name} can't be fetched: {type(error).__name__}: {first_line}") from None
