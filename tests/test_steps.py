"""What a step of training is made of: crops, learning rate, averages and statistics.

pytest tests/test_steps.py
"""

import numpy as np
import pytest
import torch

pytest.importorskip("compressai", reason="needs the extra 'train'")

from training import pictures

from sodec.train import losses
from sodec.train.data import Ahead, Crops, OnDevice, cut, cut_on_device, load_pictures
from sodec.train.optimise import Average, learning_rate, take_statistics
from sodec.train.stages import STAGES, lowest_quality


@pytest.fixture(scope="module")
def data():
    return pictures()


def test_files_that_are_no_pictures_are_counted(data, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.png").write_bytes((data / "0.png").read_bytes())
    for name in ("bad.jpg", "worse.webp"):
        (folder / name).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="2 files"):
        assert len(load_pictures(folder, tmp_path / "cache")) == 1


def test_crops_are_drawn_from_the_pictures_and_resume(data, tmp_path):
    pictures = load_pictures(data, tmp_path)
    crops = Crops(pictures, 0)
    crops.batch(2, 64)
    state = crops.random.bit_generator.state
    a = crops.batch(3, 64)
    crops.random.bit_generator.state = state
    assert torch.equal(a, crops.batch(3, 64))
    assert a.shape == (3, 3, 64, 64)


def test_crops_made_ahead_are_the_same_crops(data, tmp_path):
    pictures = load_pictures(data, tmp_path)
    ahead = Ahead(Crops(pictures, 3), 2, 64)
    taken = [ahead.take() for _ in range(3)]
    state = ahead.state
    ahead.close()
    plain = Crops(pictures, 3)
    for batch in taken:
        assert torch.equal(batch, plain.batch(2, 64))
    assert plain.random.bit_generator.state == state


def test_a_device_cuts_the_crops_that_threads_cut(data, tmp_path):
    """All but those that are reduced, which it does by another filter."""
    pictures = load_pictures(data, tmp_path)
    crops, size = Crops(pictures, 5).draw(40, 128)
    device = Crops(pictures, 5)
    on_device = OnDevice(device, 40, 128, torch.device("cpu"))
    same, other = cut(crops, size), on_device.take()
    assert other.is_contiguous(memory_format=torch.channels_last)
    reduced = torch.tensor([crop.side > size for crop in crops])
    assert 0 < reduced.sum() < len(crops)
    assert torch.equal(same[~reduced], other[~reduced])
    assert (same[reduced].float() - other[reduced].float()).abs().mean() < 2
    small = [crop._replace(picture=torch.tensor(crop.picture), side=100, top=0, left=0) for crop in crops[:2]]
    wanted = cut([crop._replace(picture=crop.picture.numpy()) for crop in small], 128)
    assert torch.equal(cut_on_device(small, 128), wanted)
    assert on_device.state == device.random.bit_generator.state


def test_quality_widens_downwards():
    plan = STAGES["annealing"]
    assert [lowest_quality(plan, progress) for progress in (0, 0.25, 0.5, 1)] == [40, 20.5, 1, 1]


def test_the_average_starts_near_the_weights_and_follows_slowly():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = Average(module, 0.9)
    torch.nn.init.ones_(module.weight)
    average.update(1)
    assert average.values["weight"].item() == pytest.approx(1 - 2 / 11)
    for step in range(1000, 1010):
        average.update(step)
    assert average.values["weight"].item() == pytest.approx(1 - 2 / 11 * 0.9**10)


def test_statistics_are_those_of_what_is_shown():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3, momentum=0.02)
    shown = torch.randn(4, 8, 3, 5, 5) * 2 + 7
    take_statistics([norm], lambda: [norm(x) for x in shown] and None)
    torch.testing.assert_close(norm.running_mean, shown.mean((0, 1, 3, 4)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, shown.var((1, 3, 4)).mean(0), rtol=1e-4, atol=1e-4)
    assert (norm.training, norm.momentum) == (False, 0.02)
    before = norm.running_mean.clone()
    norm(shown[0] + 100)
    assert torch.equal(norm.running_mean, before)


def test_lambdas_and_learning_rate():
    weights = losses.lambdas(torch.tensor([1.0, 50.5, 100.0]))
    expected = [losses.LAMBDA_LOW, (losses.LAMBDA_LOW * losses.LAMBDA_HIGH) ** 0.5, losses.LAMBDA_HIGH]
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    plan = STAGES["finish"]
    assert learning_rate(plan, 0, 0) == pytest.approx(plan.learning_rate / 100)
    assert learning_rate(plan, 1000, 0) == pytest.approx(plan.learning_rate)
    assert learning_rate(plan, 1000, 1) == pytest.approx(plan.learning_rate * plan.final)
