"""The choice of instruction set: the best by default, the one that SODEC_CPU names, or a loud refusal.

pytest tests/test_cpu.py
"""

import numpy as np
import pytest

from sodec import _native
from sodec.errors import DeviceError

PRIORITY = ["portable", "avx2", "avx512vnni"]
LAYERS = [(np.ones((1, 1, 1, 1), np.int8), np.zeros(1, np.int32), np.ones(1, np.int32), 1, 1)]


def test_the_best_supported_set_is_chosen(monkeypatch):
    monkeypatch.delenv("SODEC_CPU", raising=False)
    told = _native.cpu()
    assert set(told) == {"chosen", "supported", "bfloat16"}
    assert told["supported"] == [name for name in PRIORITY if name in told["supported"]]
    assert told["supported"][0] == "portable"
    assert told["chosen"] == told["supported"][-1]
    assert isinstance(told["bfloat16"], bool)
    monkeypatch.setenv("SODEC_CPU", "")
    assert _native.cpu() == told


def test_a_portable_build_claims_no_features():
    told = _native.cpu()
    assert told["supported"] != ["portable"] or not told["bfloat16"]


@pytest.mark.parametrize("name", _native.cpu()["supported"])
def test_sodec_cpu_forces_a_set(monkeypatch, name):
    monkeypatch.setenv("SODEC_CPU", name)
    assert _native.cpu()["chosen"] == name
    made = _native.ScaleNetwork(LAYERS)
    monkeypatch.delenv("SODEC_CPU")
    assert made.cpu == name  # what it was made for, whatever is chosen later


@pytest.mark.parametrize(
    "name", ["sse9", "AVX2", "avx2 ", *(name for name in PRIORITY if name not in _native.cpu()["supported"])]
)
def test_a_set_that_cannot_be_served_fails_and_is_named(monkeypatch, name):
    monkeypatch.setenv("SODEC_CPU", name)
    with pytest.raises(DeviceError, match=f"SODEC_CPU={name} .*portable"):
        _native.cpu()
    with pytest.raises(DeviceError, match=f"SODEC_CPU={name} "):
        _native.ScaleNetwork(LAYERS)
