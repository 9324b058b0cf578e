"""How fast a training step is: against the same step written plainly, and from a folder against synthetic photographs.

    python benchmarks/training_step.py                      # CPU, 256x256, batch 8
    python benchmarks/training_step.py --device cuda --batch-size 16 --steps 20
    python benchmarks/training_step.py --data PHOTOS        # also what loading from the cached folder costs

"Plain" is the paper's step as one would write it from stock layers: nearest-neighbour upsampling followed by a 4x4
convolution, torch's `spectral_norm` parametrisation, `torch.optim.Adam`, NCHW, float32. Both kinds of step take turns,
so that a busy machine slows both, and the fastest of each are compared. Results belong in docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from archivecolor.colorize.device import choose_dtype
from archivecolor.config import DiscriminatorConfig, GeneratorConfig, TrainConfig
from archivecolor.training.data import PhotoSet, load_photos
from archivecolor.training.sampling import Prefetcher, Sampler
from archivecolor.training.trainer import Trainer


def _conv(inputs: int, outputs: int, stride: int, padding: int, bias: bool, sn: bool) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 4, stride, padding, bias=bias)
    nn.init.xavier_uniform_(conv.weight)
    return spectral_norm(conv) if sn else conv


def _norm(kind: str | None, width: int) -> nn.Module:
    if kind is None:
        return nn.Identity()
    return nn.BatchNorm2d(width) if kind == "bn" else nn.InstanceNorm2d(width, affine=True)


class PlainGenerator(nn.Module):
    """The paper's generator from stock layers."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        sn, inner, last = config.spectral_norm, "in" if config.norm == "in" else "bn", config.norm
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels = 1
        for i, width in enumerate(config.widths):
            norm = None if i == 0 else inner
            self.down.append(nn.Sequential(_conv(channels, width, 2, 1, norm is None, sn), _norm(norm, width)))
            channels = width
        skips = config.widths[-2::-1]
        for i, width in enumerate(skips):
            norm = ("bn" if last == "bn" else "in") if i == len(skips) - 1 else inner
            self.up.append(
                nn.Sequential(
                    nn.Upsample(scale_factor=2, mode="nearest"),
                    nn.ZeroPad2d((1, 2, 1, 2)),
                    _conv(channels, width, 1, 0, False, sn),
                    _norm(norm, width),
                )
            )
            channels = 2 * width
        self.output = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"), nn.ZeroPad2d((1, 2, 1, 2)), _conv(channels, 2, 1, 0, True, sn)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for down in self.down:
            x = F.leaky_relu(down(x), 0.2)
            features.append(x)
        for up, skip in zip(self.up, features[-2::-1], strict=True):
            x = torch.cat([F.relu(up(x)), skip], 1)
        return torch.tanh(self.output(x))


class PlainDiscriminators(nn.Module):
    """The paper's multi-scale PatchGAN from stock layers."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        norms = [None, "in", "bn", None] if config.norm == "ibn" else [None, *[config.norm] * 3]
        self.scales = nn.ModuleList()
        for _ in range(config.scales):
            layers: list[nn.Module] = []
            channels = 3
            for width, norm, stride in zip(config.widths, norms, (2, 2, 2, 1), strict=True):
                layers.append(_conv(channels, width, stride, 1, norm is None, config.spectral_norm))
                layers += [_norm(norm, width), nn.LeakyReLU(0.2)]
                channels = width
            layers.append(_conv(channels, 1, 1, 1, True, config.spectral_norm))
            self.scales.append(nn.Sequential(*layers))

    def forward(self, l_norm: Tensor, ab: Tensor) -> list[Tensor]:
        x = torch.cat([l_norm, ab], 1)
        logits = []
        for n, scale in enumerate(self.scales):
            x = F.avg_pool2d(x, 2) if n else x
            logits.append(scale(x))
        return logits


class PlainTrainer:
    """The paper's step (eq. 3 to 6), written plainly."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.generator = PlainGenerator(config.generator).to(device)
        self.discriminator = PlainDiscriminators(config.discriminator).to(device)
        betas = (config.beta1, config.beta2)
        self.optimiser_g = torch.optim.Adam(self.generator.parameters(), config.lr_g, betas)
        self.optimiser_d = torch.optim.Adam(self.discriminator.parameters(), config.lr_d, betas)
        self.l1_weight = config.l1_weight

    def train_step(self, l_norm: Tensor, true_ab: Tensor) -> dict[str, Tensor]:
        """One update of the discriminators and one of the generator; the loss terms by name."""
        ab = self.generator(l_norm)
        real, fake = self.discriminator(l_norm, true_ab), self.discriminator(l_norm, ab.detach())
        d_real = torch.stack([F.softplus(-x).mean() for x in real]).sum()
        d_fake = torch.stack([F.softplus(x).mean() for x in fake]).sum()
        self.optimiser_d.zero_grad()
        (d_real + d_fake).backward()
        self.optimiser_d.step()

        self.discriminator.requires_grad_(False)
        adversarial = torch.stack([F.softplus(-x).mean() for x in self.discriminator(l_norm, ab)]).sum()
        l1 = (ab - true_ab).abs().mean()
        self.optimiser_g.zero_grad()
        (adversarial + self.l1_weight * l1).backward()
        self.optimiser_g.step()
        self.discriminator.requires_grad_(True)
        return {"d_real": d_real, "d_fake": d_fake, "g_adversarial": adversarial, "l1": l1}


def _seconds(device: torch.device, work: Callable[..., object], *arguments: object) -> float:
    since = time.perf_counter()
    work(*arguments)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - since


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ibn-sn-md")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--data", type=Path, action="append", help="photographs; also times loading from the cache")
    given = parser.parse_args()

    device = torch.device(given.device)
    config = TrainConfig(preset=given.preset, size_px=given.size, batch_size=given.batch_size, val_fraction=0)
    amp = choose_dtype(given.precision, device)
    amp = None if amp is torch.float32 else amp
    pixels = torch.randint(0, 256, (given.batch_size, given.size, given.size, 3), dtype=torch.uint8)
    names = [Path(f"{i}.png") for i in range(given.batch_size)]
    trainer = Trainer(config, PhotoSet(names, ["synthetic"] * len(names), pixels.to(device), given.size), device, amp)
    plain = PlainTrainer(config, device)
    synthetic = trainer.batches.batch(0)
    plain_batch = tuple(x.contiguous() for x in synthetic)

    plain_s, ours_s, loading_s = [], [], []
    with tempfile.TemporaryDirectory() as cache, contextlib.ExitStack() as stack:
        if given.data:
            trainer.photos = load_photos(given.data, given.size, cache_dir=Path(cache))
            trainer.batches.sampler = Sampler(
                range(len(trainer.photos)), trainer.photos.groups, batch_size=given.batch_size, balance=0, seed=0
            )
        photos = stack.enter_context(Prefetcher(trainer.batches.fetch))
        for i in range(given.steps + 1):
            seconds = (
                _seconds(device, plain.train_step, *plain_batch),
                _seconds(device, trainer.train_step, synthetic),
                # What stands between two steps: the batch from the cache, in Lab; the rest happens while one computes.
                _seconds(device, lambda step=i: trainer.batches.batch(step, photos.get(step))),
            )
            if i:  # the first of each is a warm-up
                for times, value in zip((plain_s, ours_s, loading_s), seconds, strict=True):
                    times.append(value)

    plain_best, ours_best, loading_best = min(plain_s), min(ours_s), min(loading_s)
    print(
        f"torch {torch.__version__}, {device}, {amp or 'float32'}, {given.size}x{given.size}, batch {given.batch_size}"
    )
    for name, times in (("plain", plain_s), ("archivecolor", ours_s)):
        best, median = min(times), statistics.median(times)
        print(
            f"{name:14} best {best * 1000:7.0f} ms, median {median * 1000:7.0f} ms, "
            f"{given.batch_size / best:7.2f} images/s, {plain_best / best:5.2f}x"
        )
    where = "cached folder" if given.data else "memory"
    print(f"loading        best {loading_best * 1000:7.1f} ms from {where}: {loading_best / ours_best:.1%} of a step")


if __name__ == "__main__":
    main()
