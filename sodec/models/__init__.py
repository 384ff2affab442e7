"""The networks, one file per group of parts; `model.py` joins them."""

from .config import LITE, TINY, ModelConfig
from .model import SodecModel

__all__ = ["LITE", "TINY", "ModelConfig", "SodecModel"]
