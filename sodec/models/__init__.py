"""The networks, one file per group of parts; `model.py` joins them. The sizes in `config.py` need no PyTorch."""

from typing import TYPE_CHECKING, Any

from .config import CONFIGS, LITE, SD21, SD21_TINY, TINY, ModelConfig

if TYPE_CHECKING:
    from .model import SodecModel

__all__ = ["CONFIGS", "LITE", "SD21", "SD21_TINY", "TINY", "ModelConfig", "SodecModel"]


def __getattr__(name: str) -> Any:
    if name == "SodecModel":
        from .model import SodecModel

        return SodecModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
