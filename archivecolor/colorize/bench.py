"""How fast a film is colourised here: each stage alone, all of them together, and the plain transcode beside them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from archivecolor.colorize.colourist import Colourist
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.motion_processes import MotionProcesses
from archivecolor.colorize.parts import analyse, make_recombiner, steadying_of
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.progress import NoProgress
from archivecolor.colorize.stages import Batch, steadied
from archivecolor.colorize.threads import run_stages
from archivecolor.colorize.workers import Workers
from archivecolor.config import ColorizeConfig
from archivecolor.errors import FilmDecodeError
from archivecolor.film import FilmInfo, FilmReader, FilmWriter, LumaFrame, OutputPlan, OutputSettings, plan_output

Item = TypeVar("Item")
Result = TypeVar("Result")

_HELD_BYTES, _GPU_HELD_BYTES = 400_000_000, 1_000_000_000
"""Decoded pictures that the stages alone are fed from; enough for a few seconds of 1080p."""

StageName = Literal["decode", "to-device", "network", "temporal", "recombine", "encode"]
STAGES: tuple[StageName, ...] = ("decode", "to-device", "network", "temporal", "recombine", "encode")


@dataclass(frozen=True)
class BenchResult:
    """What was measured; every speed in frames a second.

    Attributes:
        stages: of each stage alone, with nothing else at work; ``temporal`` only where colours are steadied.
        transcode: of decoding and encoding at the same time, with the same settings and no colour.
        pipeline: of `colorize_film`, from the moment when its threads begin; ``startup_s`` is the time before its first
            frames were written.
        carried: how many of the frames the pipeline spared the network; the network alone is shown all.
    """

    film: str
    size_px: tuple[int, int]
    device: str
    precision: str
    frames: int
    film_fps: float | None
    stages: dict[str, float]
    transcode: float
    pipeline: float
    startup_s: float
    carried: int = 0

    @property
    def shares_cpu(self) -> bool:
        """Whether the network runs on the processor that decodes and encodes."""
        return self.device == "cpu"

    @property
    def bound(self) -> float:
        """The speed that a pipeline without any cost of its own would have, were the network shown every frame."""
        network = self.stages["network"]
        if self.shares_cpu:
            return 1 / (1 / self.transcode + 1 / network)
        return min(self.transcode, network)

    @property
    def efficiency(self) -> float:
        """Part of `bound` that the pipeline reaches."""
        return self.pipeline / self.bound

    @property
    def limiting(self) -> str:
        """The slowest stage."""
        return min(self.stages, key=self.stages.__getitem__)

    def seconds_for(self, film_s: float) -> float | None:
        """How long a film of ``film_s`` seconds of this kind takes; None where the rate is not known."""
        return None if self.film_fps is None else self.startup_s + film_s * self.film_fps / self.pipeline

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping; speeds in frames a second."""
        return {
            "film": self.film,
            "width_px": self.size_px[0],
            "height_px": self.size_px[1],
            "device": self.device,
            "precision": self.precision,
            "frames": self.frames,
            "stages": self.stages,
            "transcode": self.transcode,
            "pipeline": self.pipeline,
            "startup_s": self.startup_s,
            "carried": self.carried,
            "bound": self.bound,
            "efficiency": self.efficiency,
            "limiting_stage": self.limiting,
            "hours_for_90_minutes": None if (s := self.seconds_for(5400)) is None else s / 3600,
        }


def bench_film(
    film: Path, engine: Engine, config: ColorizeConfig, settings: OutputSettings, *, extension: str = ".mp4"
) -> BenchResult:
    """Measure on the part of ``film`` that ``config`` cuts out of it; what is encoded goes to a temporary folder.

    Raises:
        FilmOpenError, FilmDecodeError, FilmEncodeError: as `colorize_film`.
    """
    with tempfile.TemporaryDirectory(prefix="archivecolor-bench-") as folder:
        scratch = Path(folder) / f"bench{extension}"
        watch = _Stopwatch()
        started = time.perf_counter()
        report = colorize_film(film, scratch, engine, config, settings, progress=watch)
        watch.stop()
        scratch.unlink()
        with FilmReader(film, start_s=config.start_s, end_s=config.end_s, deinterlace=config.fields) as reader:
            info = reader.info
        plan = plan_output(info, scratch, settings)
        transcode = _transcode(film, scratch, info, plan, config)
        with MotionProcesses(engine.motion_processes if config.temporal else 0) as motion:
            recombiner = make_recombiner(info, plan, config, engine.device)
            colourist = Colourist(film, engine, recombiner, analyse(info).picture, motion.find_links)
            stages = _stages_alone(film, scratch, info, plan, config, colourist)
    picture = info.picture
    return BenchResult(
        film=str(film),
        size_px=(picture.width_px, picture.height_px),
        device=str(engine.device),
        precision=engine.precision,
        frames=report.frames_written,
        film_fps=float(info.average_rate) if info.average_rate else None,
        stages=stages,
        transcode=transcode,
        pipeline=watch.frames_per_s,
        startup_s=watch.first_s - started,
        carried=report.carried_frames,
    )


class _Stopwatch(NoProgress):
    """When the first batch of a run was written, and when its file was finished."""

    def __init__(self) -> None:
        self.first_s = self._began_s = self._finished_s = 0.0
        self._frames = 0

    def update(self, frames: int, total: int | None, limiting: str) -> None:
        """See `archivecolor.colorize.progress.Progress`."""
        now = time.perf_counter()
        self._began_s = self._began_s or now
        if frames and not self._frames:
            self.first_s = now
        self._frames = frames

    def stop(self) -> None:
        """The file is finished; what encoders hold back is encoded."""
        self._finished_s = time.perf_counter()

    @property
    def frames_per_s(self) -> float:
        """From the moment when the threads begin: frames that are coloured before the first is written count."""
        if not self._frames:
            raise FilmDecodeError("the film is too short to measure; take a longer part of it")
        return self._frames / (self._finished_s - self._began_s)


def _transcode(film: Path, scratch: Path, info: FilmInfo, plan: OutputPlan, config: ColorizeConfig) -> float:
    """Frames a second of the pipeline without its middle."""
    watch = _Stopwatch()
    with (
        FilmReader(film, start_s=config.start_s, end_s=config.end_s, deinterlace=config.fields) as reader,
        FilmWriter(scratch, info, plan, offset_s=reader.time_offset_s) as writer,
    ):
        run_stages(
            reader,
            _Encoded(writer),
            lambda batches: _uncoloured(batches, info, plan),
            batch_size=8,
            progress=watch,
            total=None,
        )
    watch.stop()
    scratch.unlink()
    return watch.frames_per_s


@dataclass(frozen=True)
class _Encoded:
    """Batches go straight into a film."""

    writer: FilmWriter

    @property
    def frames(self) -> int:
        """How many are in it."""
        return self.writer.frames

    def take(self, batch: Batch) -> bool:
        """Encode the batch."""
        pictures = (picture for some in batch.planes for picture in zip(*some, strict=True))
        for frame, (y, cb, cr) in zip(batch.frames, pictures, strict=True):
            self.writer.write(y, cb, cr, frame.pts_ticks, frame.time_base, frame.duration_ticks)
        return True


def _uncoloured(batches: Iterable[Batch], info: FilmInfo, plan: OutputPlan) -> Iterator[Batch]:
    """The batches with the source's luma and neutral chroma as their planes."""
    dtype = np.uint8 if plan.bit_depth == 8 else np.uint16
    shift = plan.bit_depth - info.picture.bit_depth
    log2_w, log2_h = plan.log2_chroma
    size = (-(-info.picture.height_px >> log2_h), -(-info.picture.width_px >> log2_w))
    neutral = np.full(size, 1 << (plan.bit_depth - 1), dtype)
    for batch in batches:
        for frame in batch.frames:
            luma = np.left_shift(frame.luma.astype(dtype), shift) if shift > 0 else (frame.luma >> -shift).astype(dtype)
            batch.planes.append((luma[None], neutral[None], neutral[None]))
        yield batch


def _stages_alone(
    film: Path, scratch: Path, info: FilmInfo, plan: OutputPlan, config: ColorizeConfig, colourist: Colourist
) -> dict[str, float]:
    engine = colourist.engine
    has_gpu = engine.device.type == "cuda"
    most = max(
        16, (_GPU_HELD_BYTES if has_gpu else _HELD_BYTES) // (3 * info.picture.width_px * info.picture.height_px)
    )
    frames: list[LumaFrame] = []
    with FilmReader(film, start_s=config.start_s, end_s=config.end_s, deinterlace=config.fields) as reader:
        started = time.perf_counter()
        for item in reader:
            if isinstance(item, LumaFrame):
                frames.append(item)
                if len(frames) == most:
                    break
        decode_s = time.perf_counter() - started
        offset_s = reader.time_offset_s

    size = engine.batch_for(info.picture.height_px, info.picture.width_px)
    batches = [frames[i : i + size] for i in range(0, len(frames), size)]
    seconds: dict[StageName, float] = {"decode": decode_s}

    with Workers(engine.workers) as workers:

        def timed(stage: StageName, results: Iterable[Result]) -> list[Result]:
            started = time.perf_counter()
            done = list(results)
            if has_gpu:
                torch.cuda.synchronize(engine.device)
            seconds[stage] = time.perf_counter() - started
            return done

        def each(stage: StageName, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
            list(workers.map(work, items if has_gpu else items[:1]))  # a GPU has all threads' work to get ready for
            return timed(stage, workers.map(work, items))

        shown = each("to-device", colourist.show, batches)
        coloured = each("network", colourist.ask, shown)
        if config.temporal:

            def steady() -> Iterator[Batch]:
                waiting = [
                    Batch(some, shown=replace(seen, glimpses=[], warps=[]), coloured=replace(colours))
                    for some, seen, colours in zip(batches, shown, coloured, strict=True)
                ]
                return steadied(waiting, colourist, workers, steadying_of(info, config, engine))

            if has_gpu:
                list(steady())
            done = timed("temporal", steady())
            coloured = [batch.coloured for batch in done if batch.coloured]
        planes = each("recombine", colourist.planes, coloured)

    with FilmWriter(scratch, info, plan, offset_s=offset_s) as writer:
        started = time.perf_counter()
        pictures = (picture for parts in planes for part in parts for picture in zip(*part, strict=True))
        for frame, (y, cb, cr) in zip(frames, pictures, strict=True):
            writer.write(y, cb, cr, frame.pts_ticks, frame.time_base, frame.duration_ticks)
    seconds["encode"] = time.perf_counter() - started
    scratch.unlink()
    return {stage: len(frames) / seconds[stage] for stage in STAGES if stage in seconds}
