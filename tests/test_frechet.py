"""The Frechet distance of patches: its formula, its patches, and its feature networks.

pytest tests/test_frechet.py
"""

import json

import numpy as np
import pytest
import torch
from evaluating import Keeper, picture
from safetensors.torch import save_file

from sodec.errors import WeightsError
from sodec.evaluate import frechet


def moments(values):
    found = frechet.Moments()
    for part in np.array_split(values, 3):
        found.add(part)
    return found


@pytest.fixture
def samples():
    random = np.random.default_rng(0)
    mixed = random.normal(size=(6, 6))
    return random.normal(size=(40, 6)), random.normal(1.5, 2.0, (50, 6)) @ mixed


def test_moments_are_numpy_s(samples):
    found = moments(samples[1])
    assert found.count == 50
    np.testing.assert_allclose(found.mean, samples[1].mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(samples[1], rowvar=False))


def test_distance_is_the_formula_by_scipy(samples):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = (np.cov(values, rowvar=False) for values in samples)
    shift = samples[0].mean(0) - samples[1].mean(0)
    expected = shift @ shift + np.trace(a + b - 2 * np.real(linalg.sqrtm(a @ b)))
    assert frechet.frechet(*map(moments, samples)) == pytest.approx(expected)
    assert frechet.frechet(moments(samples[0]), moments(samples[0])) == pytest.approx(0, abs=1e-9)


def test_distance_of_shifted_and_of_fewer_samples_than_dimensions():
    few = np.random.default_rng(1).normal(size=(4, 20))
    assert frechet.frechet(moments(few), moments(few + 2)) == pytest.approx(20 * 4)


@pytest.mark.parametrize(
    ("size", "count"), [((256, 256), 1), ((512, 768), 6 + 2), ((600, 1000), 6 + 2), ((255, 900), 0)]
)
def test_patches_are_those_of_two_grids(size, count):
    rows, columns = np.mgrid[: size[0], : size[1]]
    whole = np.stack([rows // 256, columns // 256, rows % 256 + columns % 256], -1)
    found = list(frechet.patches(whole))
    assert len(found) == count
    assert all(patch.shape == (256, 256, 3) for patch in found)
    corners = {(int(patch[0, 0, 2]), int(patch[128, 128, 2])) for patch in found}
    # Those of the second grid begin in the middle of a patch of the first.
    assert corners <= {(0, 256), (256, 0)}


def means(patches):
    """A simple feature network: the mean colour, and the deviation of the first channel."""
    return np.concatenate([patches.mean((1, 2)), patches[..., :1].std((1, 2))], 1)


def test_a_codec_that_keeps_more_is_nearer():
    pictures = [picture(seed, 96, 128) for seed in range(4)]
    found = frechet.distances([Keeper()], pictures, means, "means", size=32, progress=False)
    assert [(one.codec, one.setting, one.network) for one in found] == [("keeper", q, "means") for q in Keeper.settings]
    assert {one.patches for one in found} == {4 * (12 + 6)}
    values = [one.distance for one in found]
    assert values == sorted(values, reverse=True)
    original, decoded = frechet.Moments(), frechet.Moments()
    for one in pictures:
        original.add(means(np.stack(list(frechet.patches(one, 32)))))
        decoded.add(means(np.stack(list(frechet.patches(one // 32 * 32, 32)))))
    assert values[0] == pytest.approx(frechet.frechet(original, decoded))
    assert f"{values[0]:.3f}" in frechet.table(found)
    assert "means, 72 patches" in frechet.table(found)


def test_too_few_patches_have_no_distance(tmp_path):
    found = frechet.distances([Keeper()], [picture()], means, "means", progress=False)
    assert {(one.patches, one.distance) for one in found} == {(0, None)}
    assert "–" in frechet.table(found)
    frechet.write(tmp_path / "frechet.json", found)
    assert json.loads((tmp_path / "frechet.json").read_text())[0]["distance"] is None


def test_vgg_is_torchvision_s(tmp_path):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    vgg = models.vgg16(weights=None, init_weights=False).features
    save_file({f"features.{name}": value.half() for name, value in vgg.state_dict().items()}, tmp_path / "vgg")
    name, function = frechet.load_features(tmp_path / "vgg")
    assert name == "VGG16"
    patches = np.stack([picture(seed, 32, 32) for seed in range(frechet.BATCH + 1)])
    found = function(patches)
    x = (torch.from_numpy(patches).permute(0, 3, 1, 2) / 255 - torch.tensor(frechet.MEAN)[:, None, None]) / (
        torch.tensor(frechet.DEVIATION)[:, None, None]
    )
    with torch.no_grad():
        expected = vgg.half().float()[:-1](x).mean((2, 3)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_inception_gives_its_pooled_features(tmp_path):
    models = pytest.importorskip("torchvision.models")
    network = models.inception_v3(weights=None, init_weights=False)  # with the heads that the features don't need
    save_file({name: value.half() for name, value in network.state_dict().items()}, tmp_path / "inception")
    name, function = frechet.load_features(tmp_path / "inception")
    assert name == "Inception v3"
    found = function(np.stack([picture(seed, 64, 64) for seed in range(2)]))
    assert found.shape == (2, 2048)
    assert np.isfinite(found).all()
    assert not np.array_equal(found[0], found[1])


def test_files_that_hold_no_network_are_refused(tmp_path):
    pytest.importorskip("torchvision")
    file = tmp_path / "features"
    file.write_bytes(b"no tensors here")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        frechet.load_features(file)
    save_file({"other": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="neither torchvision's Inception v3 nor its VGG16"):
        frechet.load_features(file)
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, file)
    with pytest.raises(WeightsError, match=r"lacks features\.0\.bias"):
        frechet.load_features(file)
    save_file({"features.0.weight": torch.zeros(64, 3, 5, 5)}, file)
    with pytest.raises(WeightsError, match=r"features\.0\.weight is \(64, 3, 5, 5\)"):
        frechet.load_features(file)
