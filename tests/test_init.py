"""`sodec init`: a starting model from checkpoints of diffusers and transformers, or an error that names the fault.

pytest tests/test_init.py
"""

import dataclasses
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tiny import photo

import sodec
from sodec.cli import main
from sodec.errors import UnknownModelError, WeightsError
from sodec.models import SD21_TINY, ModelConfig
from sodec.models.sd21 import DiffusionUNet, VaeDecoder
from sodec.models.sd21.start import start
from sodec.models.sd21.vit import Dinov2
from sodec.weights.hub import located

PUBLIC = SD21_TINY.public
UNET = {
    "_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16, 16, 16],
    "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": [1, 2, 2, 2], "norm_num_groups": 4,
    "use_linear_projection": True, "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKL", "block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "latent_channels": 4,
    "norm_num_groups": 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "scaling_factor": 0.18215,
}  # fmt: skip
VIT = {
    "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14,
    "image_size": 70, "mlp_ratio": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
}  # fmt: skip
SCHEDULER = {
    "prediction_type": "epsilon", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "num_train_timesteps": 1000,
}  # fmt: skip
SUFFIX = "diffusion_pytorch_model.safetensors"


def write_part(folder, config, tensors, name=SUFFIX):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)


@pytest.fixture
def sources(tmp_path):
    """A folder in diffusers' layout and one in transformers', as published: with the encoder, and with old names."""
    torch.manual_seed(0)
    root = tmp_path / "sd"
    write_part(root / "unet", UNET, DiffusionUNet(SD21_TINY).state_dict())
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = {"encoder.conv_in.weight": torch.zeros(1), "quant_conv.bias": torch.zeros(8)}
    for name, value in VaeDecoder(SD21_TINY).state_dict().items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        vae[name] = value
    write_part(root / "vae", VAE, vae)
    (root / "scheduler").mkdir()
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    vit = {"embeddings.mask_token": torch.zeros(1, 16)}
    for name, value in Dinov2(SD21_TINY).state_dict().items():
        for new in ("query", "key", "value"):
            name = name.replace(f"attention.{new[0]}_proj.", f"attention.attention.{new}.")
        vit[name.replace("attention.o_proj.", "attention.output.dense.")] = value
    write_part(tmp_path / "vit", VIT, vit, "model.safetensors")
    return root, tmp_path / "vit"


def begin(tmp_path, sources, **options):
    root, vit = sources
    return start(tmp_path / "out", root, vit=vit, base=SD21_TINY, **options)


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_parts_are_taken_and_the_codec_runs(tmp_path, sources):
    bundle = begin(tmp_path, sources)
    assert ModelConfig.from_dict(dict(bundle.config)) == SD21_TINY
    stored = bundle.tensors()
    unet = load_file(sources[0] / "unet" / SUFFIX)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert np.array_equal(stored[f"unet.{name}"], unet[name].half().numpy())
    vae = load_file(sources[0] / "vae" / SUFFIX)
    key = vae["decoder.mid_block.attentions.0.key.weight"].half().numpy()
    assert np.array_equal(stored["latent_decoder.decoder.mid_block.attentions.0.to_k.weight"], key)
    vit = load_file(sources[1] / "model.safetensors")
    dense = vit["encoder.layer.1.attention.output.dense.weight"].half().numpy()
    assert np.array_equal(stored["vit.encoder.layer.1.attention.o_proj.weight"], dense)
    codec = sodec.Codec("sd21", weights=tmp_path / "out")
    assert codec.decompress(codec.compress(photo(40, 30)), output="numpy").shape == (30, 40, 3)


def test_sizes_come_from_the_checkpoints(tmp_path, sources):
    config = dataclasses.replace(SD21_TINY, unet=(8, 8, 16, 16), sizes=dataclasses.replace(SD21_TINY.sizes, tokens=24))
    shutil.rmtree(sources[0] / "unet")
    told = {**UNET, "block_out_channels": [8, 8, 16, 16], "attention_head_dim": [1, 1, 2, 2], "cross_attention_dim": 24}
    write_part(sources[0] / "unet", told, DiffusionUNet(config).state_dict())
    assert ModelConfig.from_dict(dict(begin(tmp_path, sources).config)) == config


def test_what_diffusers_and_transformers_write_is_read(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="needs the extra 'sd21'")
    transformers = pytest.importorskip("transformers", reason="needs the extra 'sd21'")
    plain = [{k: v for k, v in told.items() if k != "_class_name"} for told in (UNET, VAE)]
    unet = diffusers.UNet2DConditionModel(**plain[0])
    unet.save_pretrained(tmp_path / "sd" / "unet", max_shard_size="50KB")
    assert len(list((tmp_path / "sd" / "unet").glob("*.safetensors"))) > 1, "the test wants shards"
    diffusers.AutoencoderKL(**plain[1]).save_pretrained(tmp_path / "sd" / "vae")
    diffusers.DDIMScheduler(**SCHEDULER).save_pretrained(tmp_path / "sd" / "scheduler")
    vit = {name: value for name, value in VIT.items() if name != "model_type"}
    transformers.Dinov2Model(transformers.Dinov2Config(**vit)).save_pretrained(tmp_path / "vit")
    stored = begin(tmp_path, (tmp_path / "sd", tmp_path / "vit")).tensors()
    expected = unet.state_dict()["conv_in.weight"].half().numpy()
    assert np.array_equal(stored["unet.conv_in.weight"], expected)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("sd/unet/config.json", {"use_linear_projection": False}, "use_linear_projection is False"),
        ("sd/unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'"),
        ("sd/unet/config.json", {"_class_name": "FluxTransformer2DModel"}, "FluxTransformer2DModel"),
        ("sd/unet/config.json", {"attention_head_dim": 2}, "heads of several widths"),
        ("sd/unet/config.json", {"layers_per_block": 2}, "tensors, the first is"),
        ("sd/unet/config.json", {"cross_attention_dim": 32}, "the model needs"),
        ("sd/vae/config.json", {"latent_channels": 16}, "latent_channels is 16"),
        (
            "sd/vae/config.json",
            {"block_out_channels": [8, 16, 16], "up_block_types": ["UpDecoderBlock2D"] * 3},
            "3 lev",
        ),
        ("vit/config.json", {"model_type": "vit"}, "model_type is 'vit'"),
        ("vit/config.json", {"num_hidden_layers": 1}, "tensors that the model does not"),
        ("sd/scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "'v_prediction'.*768"),
        ("sd/scheduler/scheduler_config.json", {"beta_schedule": "linear"}, "beta_schedule is 'linear'"),
    ],
)
def test_other_architectures_are_named(tmp_path, sources, file, values, message):
    change(tmp_path / file, **values)
    with pytest.raises(WeightsError, match=message):
        begin(tmp_path, sources)
    assert not (tmp_path / "out").exists()


def test_what_the_unet_predicts_must_be_known(tmp_path, sources):
    (sources[0] / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(WeightsError, match="scheduler_config"):
        begin(tmp_path, sources)
    begin(tmp_path, sources, prediction="epsilon")


def test_damaged_files_are_named(tmp_path, sources):
    path = sources[0] / "unet" / SUFFIX
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    with pytest.raises(WeightsError, match=rf"{len(data) - 1000} bytes, its header says {len(data)}"):
        begin(tmp_path, sources)
    path.write_bytes(data[:100])
    with pytest.raises(WeightsError, match="ends within its header"):
        begin(tmp_path, sources)
    path.write_bytes(b"PK\x03\x04" + bytes(200))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        begin(tmp_path, sources)
    path.rename(path.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model\.bin is a pickle"):
        begin(tmp_path, sources)


def test_tensors_that_lack_are_left_over_or_do_not_fit_are_named(tmp_path, sources):
    path = sources[0] / "vae" / SUFFIX
    tensors = load_file(path)
    save_file({**tensors, "decoder.extra": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"'decoder\.extra'"):
        begin(tmp_path, sources)
    save_file({name: value for name, value in tensors.items() if name != "post_quant_conv.bias"}, path)
    with pytest.raises(WeightsError, match=r"lacks 1 tensors, the first is 'post_quant_conv\.bias'"):
        begin(tmp_path, sources)


def test_sums_are_checked(tmp_path, sources):
    from sodec.weights.bundle import sha256

    files = [sources[0] / "unet" / SUFFIX, sources[0] / "vae" / SUFFIX, sources[1] / "model.safetensors"]
    sums = [sha256(path) for path in files]
    begin(tmp_path, sources, sha256=sums)
    with pytest.raises(WeightsError, match=sums[2]):
        begin(tmp_path, sources, sha256=sums[:2])


def test_on_the_command_line(tmp_path, sources):
    root, vit = map(str, sources)
    out = str(tmp_path / "out")
    done = CliRunner().invoke(main, ["init", "sd21-tiny", "--unet", root, "--vit", vit, "-o", out])
    assert done.exit_code == 0, done.output
    assert "untrained" in done.output
    assert sodec.Codec("sd21", weights=out).bundle.name == "sd21-tiny"
    for arguments, told in (
        (["init", "nosuch", "-o", out], "'nosuch'"),
        (["init", "lite", "-o", out], "'lite'"),
        (["init", "-o", out], "hf:facebook/dinov2-base@COMMIT"),
        (["init", "--unet", root, "-o", out], "unet and vit must be given"),
        (["init", "sd21-tiny", "--unet", vit, "--vit", vit, "-o", out], "block_out_channels"),
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert told in done.output


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one repository, which records its requests."""
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        if name != "someone/model":
            raise OSError(f"no repository {name}\nand more")
        return str(tmp_path / "cache" / revision)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    return asked


def test_hub_ids(hub, tmp_path, monkeypatch):
    commit = "c0ffee" + 34 * "0"
    for source in (f"hf:someone/model@{commit}", Path(f"hf:someone/model@{commit}")):
        assert located(source).name == commit
        assert hub.pop() == ("someone/model", commit, ["*.json", "*.safetensors"])
    with pytest.raises(WeightsError, match=r"no repository someone/else$"):
        located(f"hf:someone/else@{commit}")
    with pytest.raises(WeightsError, match="no repository"):
        sodec.Codec("sd21", weights=f"hf:nobody/nothing@{commit}")


@pytest.mark.parametrize(
    "source", ["hf:someone/model", "hf:someone/model@main", "hf:someone/model@c0ffee", "hf:model@" + "a" * 40, "hf:"]
)
def test_hub_ids_without_a_commit_are_refused(hub, source):
    with pytest.raises(WeightsError, match=f"{source} names no commit.*hf:OWNER/NAME@COMMIT"):
        located(source)
    assert hub == []


@pytest.mark.parametrize("source", ["runs/final", "someone/model@abc123", "final", "a/b/c", "https://h.co/a/b"])
def test_what_has_no_prefix_is_a_path(hub, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    for call in (located, lambda source: sodec.Codec(weights=source)):
        with pytest.raises(WeightsError, match=f"there is no folder {source} .*hf:OWNER/NAME@COMMIT"):
            call(source)
    Path(source).mkdir(parents=True)
    assert located(source).is_dir()
    assert hub == []


def test_without_the_hubs_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"sodec\[hub\]"):
        located("hf:someone/model@" + 40 * "0")


def test_a_public_checkpoint_is_not_taken_for_weights(sources):
    with pytest.raises(WeightsError, match="sodec init"):
        sodec.Codec("sd21", weights=sources[1])
    with pytest.raises(UnknownModelError, match="sodec init"):
        sodec.Codec("sd21")
