"""The terms of the training loss, and the scale network that they train.

pytest tests/test_losses.py
"""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("compressai", reason="needs the extra 'train'")

from sodec.entropy import laplace_tables
from sodec.models import TINY
from sodec.models.scale_network import ScaleNetwork, bounded
from sodec.train import losses


def test_a_bound_lets_the_gradient_lead_back_only():
    x = torch.tensor([-2.0, -2.0, 0.5, 9.0, 9.0], requires_grad=True)
    bound = bounded(x, 0.0, 8.0)
    assert bound.tolist() == [0, 0, 0.5, 8, 8]
    bound.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert x.grad.tolist() == [0, -1, 1, 1, 0]


@pytest.mark.parametrize("start", [14.0, -50.0])
def test_scales_come_to_follow_z_even_from_beyond_the_table(start):
    torch.manual_seed(0)
    network = ScaleNetwork(TINY)
    torch.nn.init.constant_(network.layers[-1].bias, start)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    z = torch.tensor([-2.0, 2.0])[:, None, None, None].repeat(1, TINY.z_channels, 2, 2)
    deviation = torch.tensor([0.3, 6.0])[:, None, None, None]
    for _ in range(400):
        residual = deviation * torch.randn(2, TINY.y_channels, 8, 8)
        loss = losses.laplace_bits(residual, network(z), TINY).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    low, high = network(z).mean((1, 2, 3)).tolist()
    wanted = [math.log(scale / TINY.scale_min) / TINY.scale_step for scale in (0.3, 6.0)]
    assert [low, high] == pytest.approx(wanted, abs=4)


@pytest.mark.parametrize("index", [30, 50])
def test_bits_are_what_the_tables_charge(index):
    """The density of x + noise costs, averaged over the noise, what the coder's table charges for round(x + noise)."""
    torch.manual_seed(0)
    scale = TINY.scales[index]
    x = scale * np.random.default_rng(0).laplace(0, 0.5**0.5, (1, 1, 300, 300)).astype(np.float32)
    bits = losses.laplace_bits(torch.from_numpy(x), torch.full(x.shape, float(index)), TINY).mean() / x.size
    noisy = x + np.random.default_rng(1).random(x.shape) - 0.5
    tables = laplace_tables(TINY.scales)
    own = slice(*tables.offsets[index : index + 2])
    charged = -np.log2(np.diff(tables.cumulative[own]) / (1 << tables.precision))
    place = np.clip(np.round(noisy).astype(int) - tables.minimums[index], 0, len(charged) - 1)
    assert bits == pytest.approx(charged[place].mean(), rel=0.03)


def test_bits_of_values_far_out_are_finite_and_pull_them_back():
    far = torch.tensor([3e4, -3e4])[:, None, None, None].requires_grad_()
    bits = losses.laplace_bits(far, torch.zeros_like(far), TINY)
    bits.sum().backward()
    assert torch.isfinite(bits).all()
    assert (far.grad * far > 0).all()


def test_perceptual_term_rewards_likeness():
    x = torch.rand(2, 3, 64, 64)
    assert losses.structure(x, x).max() < 1e-5
    assert losses.structure(x * 0.2, x).min() > 0.1


def test_structure_follows_ms_ssim():
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24), 192, mode="bilinear")
    for noise in (0.01, 0.05, 0.2):
        y = x + noise * torch.randn_like(x)
        expected = -pytorch_msssim.ms_ssim(x, y, data_range=1.0).log()
        assert losses.structure(y, x).item() == pytest.approx(expected.item(), rel=0.5)


def test_lattice_sees_a_phase_and_no_even_shift():
    x = torch.rand(2, 3, 32, 32)
    assert losses.lattice(x + 0.1, x).max() < 1e-6
    y = x.clone()
    y[:, :, 1::4, 2::4] += 4 / 255
    assert losses.lattice(y, x).tolist() == pytest.approx([15 / 16 / 16 * 16] * 2, rel=1e-3)


def test_lattices_of_opposite_signs_do_not_cancel():
    x = torch.rand(1, 3, 64, 128)
    y = x.clone()
    y[:, :, ::4, 0:64:4] += 4 / 255
    y[:, :, ::4, 64::4] -= 4 / 255
    assert losses.lattice(y, x).item() > 0.6 * 15 / 16


def test_colour_sees_no_grey_error():
    x = torch.rand(2, 3, 16, 16)
    assert losses.colour(x + 0.1 * torch.rand(2, 1, 16, 16), x).max() < 1e-5
    y = x.clone()
    y[:, 0] += 3 / 255  # the others differ by -1 from the mean of 1, red by 2
    assert losses.colour(y, x).tolist() == pytest.approx([2.0] * 2, rel=1e-3)


@pytest.mark.parametrize("arrangement", ["everywhere", "by columns", "by diagonals", "anywhere"])
def test_repeats_see_a_mesh_however_its_sign_changes_and_hardly_texture(arrangement):
    torch.manual_seed(0)
    columns = (-1.0) ** torch.arange(6)
    sign = {
        "everywhere": torch.ones(6, 6),
        "by columns": columns.expand(6, 6),
        "by diagonals": columns[:, None] * columns,
        "anywhere": torch.randn(6, 6).sign(),
    }[arrangement]
    mesh = torch.kron(sign, torch.randn(2, 3, 16, 16)) / 255
    power = 255**2 * (mesh**2).mean().item()
    assert losses.repeats(mesh).tolist() == pytest.approx([power] * 2, rel=0.1)
    assert losses.repeats(torch.randn(2, 3, 96, 96) / 255).max() < 0.05 * power
    assert losses.repeats(mesh[..., :16, :16]).tolist() == [0, 0]


def test_tint_sees_a_shift_of_colour_and_neither_light_nor_speckles():
    x = torch.rand(2, 3, 64, 64)
    pink = torch.tensor([3.0, -6.0, 3.0])[:, None, None] / 255
    assert losses.tint(x + pink, x).tolist() == pytest.approx([54 / 3] * 2, rel=1e-3)
    assert losses.tint(x + 0.1, x).max() < 1e-6
    speckles = 6 / 255 * torch.randn(2, 3, 64, 64)
    assert losses.tint(x + speckles, x).max() < 1 < losses.colour(x + speckles, x).min()


def test_pictures_are_moved_alike():
    torch.manual_seed(0)
    x = torch.rand(6, 3, 80, 112)
    a, b = losses.moved_alike(x, x, 64)
    assert a.shape == (6, 3, 64, 64)
    assert torch.equal(a, b)
    other, _ = losses.moved_alike(x, x, 64)
    assert not torch.equal(a, other)


def test_the_learned_perceptual_term_reaches_the_weights():
    pytest.importorskip("stlpips_pytorch")
    x = torch.rand(2, 3, 96, 96, requires_grad=True)
    loss = losses.make_perceptual(crops=1, size=64)(x, torch.rand(2, 3, 96, 96))
    assert loss.shape == (1,)
    loss.sum().backward()
    assert loss > 0
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
