"""Frames a second of the network alone, and milliseconds a frame of lightness and recombination alone.

python benchmarks/colorize_stages.py [--device cpu]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from archivecolor.colorize.engine import Engine
from archivecolor.colorize.recombine import PlaneFormat, Recombiner
from archivecolor.config import ColorizeConfig

BATCH, SIZES = 8, ((480, 640), (1080, 1920))


def seconds_a_frame(work: Callable[[], object], frames: int, device: torch.device, repeats: int = 4) -> float:
    """Best of ``repeats``, after one run to warm up."""
    best = float("inf")
    for number in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started) if number else best
    return best / frames


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    engine = Engine(ColorizeConfig(device=parser.parse_args().device))
    random = torch.Generator().manual_seed(0)
    L = (torch.rand(BATCH, 1, 256, 256, generator=random) * 100).to(engine.device)
    network_s = seconds_a_frame(lambda: engine.chroma(L), BATCH, engine.device)
    print(f"network, {engine.device}, {engine.dtype}, batches of {BATCH}: {1 / network_s:.1f} frames/s")
    ab = ((torch.rand(2, 2, 256, 256, generator=random) - 0.5) * 40).to(engine.device)
    for mode in ("lab", "luma"):
        join = Recombiner(
            bit_depth=8, full_range=False, out=PlaneFormat(8, False, "bt709", 1, 1), mode=mode, device=engine.device
        )
        for height, width in SIZES:
            luma = torch.randint(16, 236, (2, height, width), generator=random, dtype=torch.uint8).to(engine.device)
            frame_s = seconds_a_frame(lambda: join(luma, ab), 2, engine.device)  # noqa: B023
            print(f"lightness and recombination, {mode}, {width}x{height}: {1000 * frame_s:.1f} ms/frame")


if __name__ == "__main__":
    main()
