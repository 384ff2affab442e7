"""Gradients of a batch, eager and as a graph would compute them. On a CPU a function takes the place of the graph.

pytest tests/test_gradients.py
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("compressai", reason="needs the extra 'train'")

from sodec.train import optimise
from sodec.train.adversary import RAMP, SHARE, Adversary
from sodec.train.optimise import Gradients
from sodec.train.stages import Batch, Judged, Outcome

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Objective(nn.Module):
    """Only the loss of wide crops depends on its second weight."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(3)) for _ in range(2))

    def forward(self, batch):
        colour = (batch.x - 0.5).mean((2, 3)) * self.weights[0]
        error = (batch.quality * colour.square().sum(1)).mean()
        if batch.x.shape[-1] > 8:
            error = error + self.weights[1].square().sum()
        return Outcome(error, {"error": error})


def taken(graphs, device="cpu"):
    """The gradients of three batches of two sizes, and the reported values."""
    objective = Objective().to(device)
    accelerator = SimpleNamespace(backward=lambda loss: loss.backward(), clip_grad_norm_=nn.utils.clip_grad_norm_)
    compute = Gradients(objective, accelerator, list(objective.parameters()), Batch, graphs)
    torch.manual_seed(0)
    found = []
    for side in (8, 16, 8):
        x = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8).to(device)
        values = compute(x, torch.tensor([1.0, 100.0], device=device)).values
        grads = [torch.zeros(3) if w.grad is None else w.grad.cpu().clone() for w in objective.weights]
        found.append((grads, {name: float(value) for name, value in values.items()}))
    return found


def same(one, other):
    for (grads, values), (grads_2, values_2) in zip(one, other, strict=True):
        torch.testing.assert_close(grads, grads_2)
        assert values == pytest.approx(values_2)
        assert list(values) == ["loss", "error", "gradient"]


def test_a_replayed_step_leaves_the_gradients_of_its_own_batch(monkeypatch):
    captured = []

    def capture(function, inputs, pool):
        captured.append(inputs[0].shape)
        for _ in range(3):  # as a capture warms up
            function(*inputs)
        return function

    monkeypatch.setattr(optimise, "Captured", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    same(taken(True), taken(False))
    assert len(captured) == 2, "a graph of each size"


@on_a_gpu
def test_a_graph_gives_the_gradients_of_its_batch():
    same(taken(True, "cuda"), taken(False, "cuda"))


class OneRatio(Adversary):
    """An adversary that learns nothing."""

    def __init__(self):
        self.critic = SimpleNamespace(ratio=torch.ones(()), steps=torch.zeros(()))

    def learn(self, x, decoded, y_hat):
        self.critic.steps += 1
        return torch.zeros(())


def test_the_critics_gradient_gets_its_share_whatever_its_size():
    """Ten times the loss of the critic changes nothing, once the running ratio has settled."""
    torch.manual_seed(0)
    found = []
    for factor in (1.0, 10.0):
        weight = torch.nn.Parameter(torch.ones(1, 3, 8, 8))

        def objective(batch, factor=factor, weight=weight):
            x = batch.x * weight
            return Outcome((x**2).mean(), {}, x.detach(), x.detach(), Judged(x, [], factor * x.mean()))

        accelerator = SimpleNamespace(clip_grad_norm_=lambda parameters, norm: torch.zeros(()))
        gradients = Gradients(objective, accelerator, [weight], Batch, graphs=False, adversary=OneRatio())
        x = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
        gradients(x, torch.ones(1))
        alone = torch.full_like(weight, 2 / weight.numel())
        torch.testing.assert_close(weight.grad, alone, rtol=1e-3, atol=0)  # an untaught critic says nothing
        for _ in range(2 * RAMP):
            gradients(x, torch.ones(1))
        found.append(weight.grad.clone())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=0)
    torch.testing.assert_close(found[0], alone * (1 + SHARE), rtol=1e-3, atol=0)


def test_graphs_that_are_forgotten_take_their_pool_with_them(monkeypatch):
    """PyTorch can't capture into a pool whose graphs are all gone: the first run on a GPU ended there."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    pools = []
    monkeypatch.setattr(optimise, "Captured", lambda function, inputs, pool: pools.append(pool) or (lambda *_: ([],)))
    gradients = Gradients(torch.nn.Identity(), None, [], Batch, graphs=True)
    for size in (8, 9):
        gradients._graphs[torch.Size([1, 3, size, size])] = None
        gradients.reset()
    x = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    gradients._names = []
    for _ in range(2):
        with pytest.raises(KeyError, match="loss"):
            gradients(x, torch.ones(1))
        gradients.reset()
    assert len({id(pool) for pool in pools}) == 2
