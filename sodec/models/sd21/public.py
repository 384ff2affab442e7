"""How public checkpoints become parts of `sd21`: their sizes from config.json, their tensors by name.

- UNet: diffusers' `UNet2DConditionModel` of SD 2.x. Names are ours.
- Latent decoder: of diffusers' `AutoencoderKL`, what begins with "decoder." or "post_quant_conv."; files from before
  diffusers 0.18 call the attention's layers query, key, value and proj_attn.
- ViT: transformers' `Dinov2Model`. Files of transformers 4 say attention.attention.query for attention.q_proj and so
  on. The mask token, which only training uses, is left out.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import WeightsError
from ...weights.public import read_json, require
from ..config import ModelConfig

UNET = {
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "use_linear_projection": True, "norm_eps": 1e-5,
    "flip_sin_to_cos": True, "freq_shift": 0, "center_input_sample": False, "downsample_padding": 1,
    "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "only_cross_attention": False,
    "dual_cross_attention": False, "transformer_layers_per_block": 1, "resnet_time_scale_shift": "default",
    "class_embed_type": None, "addition_embed_type": None, "encoder_hid_dim": None, "num_class_embeds": None,
    "time_embedding_type": "positional", "conv_in_kernel": 3, "conv_out_kernel": 3,
}  # fmt: skip
VAE = {"_class_name": "AutoencoderKL", "act_fn": "silu", "out_channels": 3}
VIT = {
    "model_type": "dinov2", "hidden_act": "gelu", "mlp_ratio": 4, "qkv_bias": True, "use_swiglu_ffn": False,
    "layer_norm_eps": 1e-6, "num_channels": 3,
}  # fmt: skip
SCHEDULER = {"beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "rescale_betas_zero_snr": False}


def sizes(base: ModelConfig, unet: Path, vae: Path, vit: Path) -> ModelConfig:
    """`base` with the sizes that the config.json of three folders tell.

    Raises `WeightsError` naming the file and the field where one is of another architecture.
    """
    try:
        config = _of_unet(base, unet / "config.json")
        config = _of_vae(config, vae / "config.json")
        return _of_vit(config, vit / "config.json")
    except KeyError as error:
        raise WeightsError(f"a config.json has no field {error.args[0]!r}: {unet}, {vae} or {vit}") from None


def schedule(base: ModelConfig, path: Path, prediction: str | None = None) -> ModelConfig:
    """`base` with the noise schedule of scheduler_config.json, whose prediction must be of eps.

    `prediction` ("epsilon") stands in for a file that is not there. Raises `WeightsError` where the model predicts
    something else, as the 768-pixel SD 2.1 does (v): the one step would be another formula.
    """
    if prediction is not None and not path.exists():
        fields: dict[str, Any] = {"prediction_type": prediction}
    else:
        fields = read_json(path)
        require(path, fields, SCHEDULER)
    kind = fields.get("prediction_type", "epsilon")  # diffusers' own default
    if kind != "epsilon":
        hint = " (SD 2.1 at 768 pixels? the 512 base predicts epsilon)" if kind == "v_prediction" else ""
        raise WeightsError(f"{path}: prediction_type is {kind!r}, this model needs 'epsilon'{hint}")
    first, last = (float(fields.get(name, getattr(base, name))) for name in ("beta_start", "beta_end"))
    return dataclasses.replace(base, beta_start=first, beta_end=last)


def vae_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The latent decoder's tensors, with the names that diffusers uses since version 0.18."""
    decoder = {name: value for name, value in tensors.items() if name.startswith(("decoder.", "post_quant_conv."))}
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    result = {}
    for name, value in decoder.items():
        renamed = re.sub(r"\.(query|key|value|proj_attn)\.", lambda old: f".{names[old[1]]}.", name)
        # Older files have them as 1x1 convolutions.
        result[renamed] = value.flatten(1) if renamed != name and value.ndim == 4 else value
    return result


def vit_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The ViT's tensors, with the names that transformers uses since version 5."""
    result = {}
    for name, value in tensors.items():
        name = name.removeprefix("dinov2.")
        name = re.sub(r"\.attention\.attention\.(query|key|value)\.", lambda old: f".attention.{old[1][0]}_proj.", name)
        result[name.replace(".attention.output.dense.", ".attention.o_proj.")] = value
    result.pop("embeddings.mask_token", None)
    return result


def _of_unet(base: ModelConfig, path: Path) -> ModelConfig:
    fields = read_json(path)
    require(path, fields, {**UNET, "in_channels": base.latent, "out_channels": base.latent})
    widths, heads = tuple(fields["block_out_channels"]), fields["attention_head_dim"]
    counts = heads if isinstance(heads, list) else [heads] * len(widths)  # diffusers' misnomer: how many there are
    head = widths[0] // counts[0]
    if [width // head for width in widths] != counts:
        raise WeightsError(f"{path}: attention_head_dim {heads} gives heads of several widths for {list(widths)}")
    down = fields["down_block_types"]
    attention = tuple(kind == "CrossAttnDownBlock2D" for kind in down)
    expected = ["CrossAttnDownBlock2D" if guided else "DownBlock2D" for guided in attention]
    up = [kind.replace("Down", "Up") for kind in reversed(expected)]
    require(path, fields, {"down_block_types": expected, "up_block_types": up})
    public = dataclasses.replace(
        base.public, unet_blocks=fields["layers_per_block"], unet_attention=attention, unet_head=head,
        groups=fields["norm_num_groups"], tokens=fields["cross_attention_dim"],
    )  # fmt: skip
    return dataclasses.replace(base, unet=widths, sizes=public)


def _of_vae(base: ModelConfig, path: Path) -> ModelConfig:
    fields = read_json(path)
    widths = tuple(reversed(fields["block_out_channels"]))
    levels = ["UpDecoderBlock2D"] * len(widths)
    wanted = {"latent_channels": base.latent, "norm_num_groups": base.public.groups, "up_block_types": levels}
    require(path, fields, {**VAE, **wanted})
    if len(widths) != 4:
        raise WeightsError(f"{path}: block_out_channels has {len(widths)} levels, the latent at 1/8 needs 4")
    public = dataclasses.replace(base.public, latent_scale=fields.get("scaling_factor", base.public.latent_scale))
    blocks = (fields["layers_per_block"] + 1,) * len(widths)
    return dataclasses.replace(base, decoder=widths, decoder_blocks=blocks, sizes=public)


def _of_vit(base: ModelConfig, path: Path) -> ModelConfig:
    fields = read_json(path)
    require(path, fields, VIT)
    width, patch = fields["hidden_size"], fields["patch_size"]
    public = dataclasses.replace(
        base.public, vit=width, vit_depth=fields["num_hidden_layers"], vit_patch=patch,
        vit_head=width // fields["num_attention_heads"], vit_grid=fields["image_size"] // patch,
    )  # fmt: skip
    return dataclasses.replace(base, sizes=public)
