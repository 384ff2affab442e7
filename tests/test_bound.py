"""Weights whose largest singular value is kept below a bound.

pytest tests/test_bound.py
"""

import pytest
import torch
from torch import nn

pytest.importorskip("compressai", reason="needs the extra 'train'")

from sodec.train.optimise import LARGEST, Bound


def largest(layer):
    return torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()


def test_a_layer_that_grows_is_held_and_others_are_left():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Linear(16, 4))
    bound = Bound(layers)
    before = layers[1].weight.clone()
    direction = torch.randn(16, 1, 1, 1) * torch.randn(1, 8, 3, 3)
    for _ in range(200):
        with torch.no_grad():
            layers[0].weight += 0.01 * direction
        bound.apply()
    assert largest(layers[0]) == pytest.approx(LARGEST, rel=0.03)
    assert torch.equal(layers[1].weight, before)


def test_directions_go_on_from_a_checkpoint():
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)
    first = Bound(layer)
    for _ in range(50):
        first.apply()
    second = Bound(layer)
    second.load(first.directions)
    assert torch.equal(second.directions[0], first.directions[0])
    assert second.directions[0] is not first.directions[0]
