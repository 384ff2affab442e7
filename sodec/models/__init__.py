"""The networks, one file per group of parts; `model.py` joins them."""

from .config import CONFIGS, LITE, SD21, SD21_TINY, TINY, ModelConfig
from .model import SodecModel

__all__ = ["CONFIGS", "LITE", "SD21", "SD21_TINY", "TINY", "ModelConfig", "SodecModel"]
