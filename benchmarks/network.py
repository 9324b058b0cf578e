"""Frames a second of the network alone: the reference graph, and each precision as `colorize` runs it.

The reference is the paper's graph written plainly: float32, nearest-neighbour upsampling then a 4x4 convolution,
spectral and batch norm computed rather than folded, one frame at a time.

On a GPU also the folded network in several batch sizes, and how much of the device's arithmetic each uses: of what a
large bf16 matrix product reaches on it. That part is timed with nothing but the network at work.

python benchmarks/network.py [--weights FILE] [--device cpu] [--frames 48]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

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
        list(workers.map(engine.colours, batches if engine.device.type == "cuda" else batches[:2]))
        for _ in range(repeats):
            started = time.perf_counter()
            list(workers.map(engine.colours, batches))
            if engine.device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    return len(shown) / best


def seconds_on_gpu(work: Callable[[], object], at_least_s: float = 0.5) -> float:
    """Mean time of ``work``, called again and again without waiting for it, for at least so long."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    calls, measured_s = 3, 0.0
    while measured_s < at_least_s:
        work()
        start.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        measured_s = start.elapsed_time(end) / 1000
        done, calls = calls, min(20 * calls, round(1.2 * calls * at_least_s / measured_s) + 1)
    return measured_s / done


def peak_flops(device: torch.device, side: int = 8192) -> float:
    """Operations a second in the product of two random bf16 matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_on_gpu(lambda: a @ b)


def print_gpu_table(plain: torch.nn.Module, engines: dict[str, Engine], L: Tensor) -> float:
    """Frames a second of each variant, and what part of the GPU's arithmetic that is; returns the reference's."""
    device = L.device
    folded = engines["fp32"]._generator
    with FlopCounterMode(display=False) as counter:
        folded(engines["fp32"].network_input(L[:1]))
    a_frame = counter.get_total_flops()
    peak = peak_flops(device)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; {a_frame / 1e9:.1f} GFLOP a frame, folded")
    print(f"bf16 matrix product: {peak / 1e12:.0f} TFLOP/s")

    def show(name: str, network: torch.nn.Module, l_norm: Tensor, slow: float | None = None) -> float:
        speed = len(l_norm) / seconds_on_gpu(lambda: network(l_norm))
        words = f"{name}, batches of {len(l_norm)}: {speed:.0f} frames/s"
        if slow is not None:
            flops = speed * a_frame
            words += f", {speed / slow:.1f} times the reference, {flops / 1e12:.1f} TFLOP/s, {flops / peak:.3f} of peak"
        print(words, flush=True)
        return speed

    torch.backends.cudnn.allow_tf32 = False
    slow = show("reference, fp32", plain, L[:1] / 50 - 1)
    show("folded, fp32", folded, engines["fp32"].network_input(L[:16]), slow)
    torch.backends.cudnn.allow_tf32 = True
    show("folded, fp32 with TF32", folded, engines["fp32"].network_input(L[:16]), slow)
    for size in (1, 8, 16, 32, 64):
        some = L.repeat(-(-size // len(L)), 1, 1, 1)[:size]
        show("folded, bf16", engines["bf16"]._generator, engines["bf16"].network_input(some), slow)
    return slow


def reference_frames_per_s(plain: torch.nn.Module, L: Tensor) -> float:
    """The reference on the CPU, one frame at a time."""
    frames = (L[:8, None] / 50 - 1).unbind()
    plain(frames[0])
    started = time.perf_counter()
    for frame in frames:
        plain(frame)
    slow = len(frames) / (time.perf_counter() - started)
    print(f"reference, fp32, one frame at a time: {slow:.1f} frames/s")
    return slow


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
    if device.type == "cuda":
        slow = print_gpu_table(plain, engines, L.to(device))
        L = L.repeat(20, 1, 1, 1)  # a GPU is through with a few batches before they can be timed
        print("as in a film, checks of the frames and of the colours among it:")
    else:
        slow = reference_frames_per_s(plain, L.to(device))
    for precision, engine in engines.items():
        fast = frames_per_s(engine, engine.network_input(L.to(device)))
        print(
            f"{precision}, batches of {engine.batch_size}: {fast:.1f} frames/s, {fast / slow:.1f} times the reference"
        )


if __name__ == "__main__":
    main()
