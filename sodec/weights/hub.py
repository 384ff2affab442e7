"""Where weights are: a folder, or the id of a repository on the Hugging Face hub, fetched once into its cache."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import WeightsError

HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")
PATTERNS = ("*.json", "*.safetensors")  # never a pickle


def located(source: str | Path, patterns: Sequence[str] = PATTERNS) -> Path:
    """The folder `source`, or the files of "owner/name" or "owner/name@revision" that `patterns` name.

    A folder of that name is preferred. Without a revision the newest is taken, and a warning tells which it is.
    Raises `WeightsError` where the hub can't be asked or has no such repository.
    """
    found = HUB_ID.fullmatch(str(source))
    if Path(source).exists() or found is None:
        return Path(source)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise WeightsError(
            f"{source} is no folder; if it is a hub id: it needs huggingface_hub, pip install 'sodec[hub]'"
        ) from None
    name, revision = found.groups()
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # of many kinds: no network, no such repository, no right to it
        told = str(error).strip().splitlines() or [""]
        raise WeightsError(f"no folder {source}, and the hub: {type(error).__name__}: {told[0]}") from None
    if revision is None:
        warnings.warn(f"{source}: no revision was given; this one is {name}@{folder.name}", stacklevel=2)
    return folder
