"""Weights: where they are, whether they are whole, and the tensors in them. `bundle.py` says how they are stored,
`description.py` checks model.json, `saving.py` writes."""

from .bundle import (
    Bundle,
    Coding,
    bundled_fingerprints,
    bundled_models,
    find,
    find_by_fingerprint,
    resolve,
)  # fmt: skip
from .saving import MAX_FILE_BYTES, write

__all__ = [
    "MAX_FILE_BYTES", "Bundle", "Coding", "bundled_fingerprints", "bundled_models", "find", "find_by_fingerprint",
    "resolve", "write",
]  # fmt: skip
