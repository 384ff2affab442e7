"""One step of training, and everything that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object
from torch import Tensor, nn

from ..errors import TrainingError
from . import checkpoint
from .adversary import Adversary
from .losses import make_perceptual
from .optimise import STATISTICS, Average, Gradients, batch_norms, learning_rate, take_statistics
from .options import Options
from .parts import DECIDES_Y_HAT, Parts
from .report import LOG_EVERY
from .stages import Batch, Outcome, Stage, lowest_quality

BETAS = (0.9, 0.99)  # of Adam
# Of every crop of 256x256 a quarter of the pixels: VGG's 309 kMAC a pixel are nine times the decoder's.
PERCEPTUAL_ON_GPU = {"crops": 64, "size": 128}


class State:
    """A stage's parts, optimiser, average, critic and random generators, on their device.

    Everything is read from `path` if there is a checkpoint; otherwise the parts come from `options.start`.

    Attributes
    ----------
    step, spent
        Steps done, and the seconds that they took.
    trained
        Names of the parts that have been trained up to here: a later stage copies these.
    coding
        The integers of a coding that no stage has trained since it was exported, by name; None of any other.
    crops
        The state of the generator of crops in the checkpoint, or None.

    Raises
    ------
    TrainingError
        A checkpoint is damaged, or of another configuration or LoRA rank.
    """

    def __init__(self, stage: Stage, path: Path, options: Options) -> None:
        cuda = options.device == "cuda"
        bfloat16 = torch.cuda.is_bf16_supported() if cuda else _fast_bfloat16()
        self.accelerator = Accelerator(
            cpu=not cuda,
            mixed_precision="bf16" if bfloat16 else "no",
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        torch.manual_seed(options.seed + self.accelerator.process_index)
        self.stage, self.path, self.rank = stage, path, options.lora_rank
        self.parts = Parts(options.config)
        saved = checkpoint.load(path) if path.exists() else None
        self.trained = set(stage.trains)
        self.coding: dict[str, Tensor] | None = None
        if saved is None:
            for source in options.start:
                names = checkpoint.load_parts(self.parts, source)
                self.trained |= names
                if names & DECIDES_Y_HAT:
                    self.coding = checkpoint.coding_of_source(source)
        if set(stage.trains) & DECIDES_Y_HAT:
            self.coding = None
        self.parameters = self.parts.train_only(stage.trains)
        if self.rank:
            self.parameters = self.parts.add_adapters(self.rank)
        self.parts.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.optimizer: Any = torch.optim.Adam(self.parameters, stage.learning_rate, BETAS, fused=True)
        self.average = Average(self.parts, options.ema) if options.ema else None
        self.norms = batch_norms(self.parts)
        self.frozen = False
        y_channels = self.parts.model.config.y_channels
        self.adversary = Adversary(y_channels, stage.learning_rate, self.accelerator) if stage.adversarial else None
        self.step, self.spent = 0, 0.0
        self.crops: Any = None
        if saved is not None:
            self._resume(saved)
        if options.compiled:
            for name in self.parts.names():
                self.parts.part(name).compile()
        objective = self.accelerator.prepare_model(_Objective(self.parts, stage))
        self.perceptual: Any = None
        if stage.perceptual:
            sizes = PERCEPTUAL_ON_GPU if cuda else {}
            self.perceptual = make_perceptual(**sizes, device=self.accelerator.device)
        eager = options.eager or options.tensorboard or self.accelerator.num_processes > 1
        self.gradients = Gradients(
            objective, self.accelerator, self.parameters, self._batch, graphs=cuda and not eager,
            adversary=self.adversary,
        )  # fmt: skip

    def _batch(self, x: Tensor, quality: Tensor) -> Batch:
        critic = self.adversary.critic if self.adversary else None
        return Batch(x, quality, self.perceptual, self.stage.perceptual or (1.0, 1.0), critic)

    def advance(self, x: Tensor, progress: float) -> Outcome:
        """One step on the pictures x (B, 3, H, W), uint8, at a place 0..1 in the stage."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.stage, self.step, progress)
        device = self.accelerator.device
        x = x.to(device, non_blocking=True)
        outcome = self.gradients(x, self._qualities(len(x), progress))
        values = outcome.values
        if device.type == "cpu" or self.step % LOG_EVERY == 0:  # reading a value makes the CPU wait for a GPU
            self._check(values)
        if device.type != "cpu":  # Adam then skips a step whose gradient is not finite, without asking the CPU
            self.optimizer.found_inf = (~torch.isfinite(values["gradient"])).float()
        self.optimizer.step()
        if self.adversary is not None:
            self.adversary.update()
        self.step += 1
        if self.average:
            self.average.update(self.step)
        return outcome

    def _qualities(self, count: int, progress: float) -> Tensor:
        """Of a batch at a place in the stage, (count,): stratified, so that those of every batch span the range."""
        lowest, device = lowest_quality(self.stage, progress), self.accelerator.device
        place = (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count
        return lowest + (100 - lowest) * place

    def freeze_statistics(self, pictures: Callable[[], Tensor], progress: float) -> None:
        """From here on, batch norms keep the statistics that the weights now have over `STATISTICS` batches."""
        self.frozen = True
        if self.norms:
            self._take_statistics(pictures, progress)
            self.gradients.reset()

    def _take_statistics(self, pictures: Callable[[], Tensor], progress: float) -> None:
        def run() -> None:
            for _ in range(STATISTICS):
                x = pictures().to(self.accelerator.device).float() / 255
                self.gradients.objective(Batch(x, self._qualities(len(x), progress)))

        take_statistics(self.norms.values(), run)

    def _check(self, values: dict[str, Tensor]) -> None:
        if torch.isfinite(values["loss"]) and torch.isfinite(values["gradient"]):
            return
        gradients = {f"gradient of {name}": p.grad for name, p in self.parts.named_parameters() if p.grad is not None}
        first = next((name for name, t in {**values, **gradients}.items() if not torch.isfinite(t).all()), "none")
        numbers = {name: float(value) for name, value in values.items()}
        raise TrainingError(f"step {self.step}: the loss or its gradient is not finite, first {first}: {numbers}")

    def save(self, crops: Any, finished: bool = False) -> None:
        """Writes the checkpoint; `crops` is the state of their generator. All processes take part, the first writes."""
        random = gather_object([{"torch": torch.get_rng_state(), "crops": crops}])
        if self.accelerator.is_main_process:
            adversary = self.adversary
            checkpoint.save(self.path, {
                "parts": self.parts.state_dict(), "optimizer": self.optimizer.state_dict(), "random": random,
                "average": self.average.values if self.average else None, "lora": self.rank,
                "critic": adversary.critic.state_dict() if adversary else None,
                "critic_optimizer": adversary.optimizer.state_dict() if adversary else None,
                "touched": sorted(self.trained), "coding": self.coding, "step": self.step, "spent": self.spent,
                "finished": finished, "frozen": self.frozen,
                "config": self.parts.model.config.to_dict(),
            })  # fmt: skip
        self.accelerator.wait_for_everyone()

    def _resume(self, saved: dict[str, Any]) -> None:
        if saved["config"] != self.parts.model.config.to_dict() or saved["lora"] != self.rank:
            raise TrainingError(
                f"{self.path} is of configuration {saved['config'].get('name')!r} and LoRA rank {saved['lora']}, "
                f"not of {self.parts.model.config.name!r} as it is now and rank {self.rank}"
            )
        try:
            self.parts.load_state_dict(saved["parts"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.average and saved["average"]:
                self.average.load(saved["average"])
            if self.adversary is not None:
                self.adversary.critic.load_state_dict(saved["critic"])
                self.adversary.optimizer.load_state_dict(saved["critic_optimizer"])
            own = self.accelerator.process_index
            if own < len(saved["random"]):
                torch.set_rng_state(saved["random"][own]["torch"])
                self.crops = saved["random"][own]["crops"]
            self.frozen = bool(saved["frozen"])
            if self.frozen:
                for norm in self.norms.values():
                    norm.eval()
            self.trained, self.step, self.spent = set(saved["touched"]), int(saved["step"]), float(saved["spent"])
            self.coding = saved.get("coding")
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise TrainingError(f"training can't go on from {self.path}: {type(error).__name__}: {error}") from None


class _Objective(nn.Module):
    """The loss as a module, so that accelerate can spread it over processes and lower its precision."""

    def __init__(self, parts: Parts, stage: Stage) -> None:
        super().__init__()
        self.parts = parts
        self.stage = stage

    def forward(self, batch: Batch) -> Outcome:
        return self.stage.loss(self.parts, batch)


def _fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself.

    3x3 convolutions on two cores: Zen 4 does 415 GFLOP/s against 200 in float32; Zen 3, which emulates it, 16 against
    112.
    """
    return bool(torch.cpu._is_avx512_bf16_supported())
