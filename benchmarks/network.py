"""Frames a second of the network alone: the reference graph, and each precision as `colorize` runs it.

The reference is the paper's graph written plainly: float32, nearest-neighbour upsampling then a 4x4 convolution,
spectral and batch norm computed rather than folded, one frame at a time.

python benchmarks/network.py [--weights FILE] [--device cpu] [--frames 48]
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor.colorize.engine import Engine
from archivecolor.colorize.workers import Workers
from archivecolor.config import ColorizeConfig
from archivecolor.networks.blocks import UpConv2d
from archivecolor.weights import find_weights, load_generator


class PlainUp(torch.nn.Module):
    """`UpConv2d` as the paper's authors wrote it."""

    def __init__(self, conv: UpConv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out, 2H, 2W)."""
        weight = self.conv.weight / self.conv.sigma() if self.conv.spectral_norm else self.conv.weight
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return F.conv2d(F.pad(x, (1, 2, 1, 2)), weight, self.conv.bias)


def reference(weights: str | None, device: torch.device) -> torch.nn.Module:
    """The generator with its up-convolutions written plainly."""
    generator = load_generator(find_weights(weights)).to(device)
    for block in generator.decoder:
        block.conv = PlainUp(block.conv)
    generator.output = PlainUp(generator.output)
    return generator.eval()


def frames_per_s(engine: Engine, shown: Tensor, repeats: int = 3) -> float:
    """Best of ``repeats`` over the batches of ``shown``, worked on as in a film."""
    batches = list(shown.split(engine.batch_size))
    best = float("inf")
    with Workers(engine.workers) as workers:
        list(workers.map(engine.colours, batches[:2]))
        for _ in range(repeats):
            started = time.perf_counter()
            list(workers.map(engine.colours, batches))
            if engine.device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    return len(shown) / best


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, default=48)
    arguments = parser.parse_args()

    random = torch.Generator().manual_seed(0)
    L = F.interpolate(torch.rand(arguments.frames, 1, 16, 16, generator=random), size=(256, 256), mode="bicubic") * 100
    L = (L + torch.randn(L.shape, generator=random)).clamp(0, 100)

    engines = {}
    for precision in ("fp32", "bf16", "auto"):
        config = ColorizeConfig(weights=arguments.weights, device=arguments.device, precision=precision)
        engine = Engine(config)
        engine.fit([engine.network_input(frame[None].to(engine.device)) for frame in L[:8]])
        engines[engine.precision] = engine

    device = next(iter(engines.values())).device
    plain = reference(arguments.weights, device)
    frames = (L[:10, None].to(device) / 50 - 1).unbind()
    plain(frames[0])
    started = time.perf_counter()
    for frame in frames[:8]:
        plain(frame)
    if device.type == "cuda":
        torch.cuda.synchronize()
    slow = 8 / (time.perf_counter() - started)
    print(f"reference, fp32, one frame at a time: {slow:.1f} frames/s")
    for precision, engine in engines.items():
        fast = frames_per_s(engine, engine.network_input(L.to(device)))
        print(
            f"{precision}, batches of {engine.batch_size}: {fast:.1f} frames/s, {fast / slow:.1f} times the reference"
        )


if __name__ == "__main__":
    main()
