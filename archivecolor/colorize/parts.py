"""One worker's share of a film: from where its journal ends to the end of its part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from archivecolor import color
from archivecolor.colorize.colourist import Colourist
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.journal import Journal, Restart, Segment
from archivecolor.colorize.mattes import Rectangle, find_picture
from archivecolor.colorize.motion_processes import MotionProcesses
from archivecolor.colorize.places import open_reader
from archivecolor.colorize.progress import Progress, Stage, Stop
from archivecolor.colorize.recombine import PlaneFormat, Recombiner
from archivecolor.colorize.segments import SHORTEST_PART, RestartError, SegmentSink, SegmentWriter, reach
from archivecolor.colorize.space import Space
from archivecolor.colorize.stages import Steadying, colour_batches, warm_up
from archivecolor.colorize.threads import run_stages
from archivecolor.colorize.work import Part
from archivecolor.colorize.workers import Workers
from archivecolor.config import ColorizeConfig
from archivecolor.errors import FilmDecodeError, StoppedError
from archivecolor.film import (
    FilmInfo,
    FilmReader,
    FilmSegmentWriter,
    LumaFrame,
    OutputPlan,
    OutputSettings,
    ReadReport,
    SequenceReader,
    SequenceSegmentWriter,
    SidePacket,
    is_pattern,
    sample_frames,
)

_FRAMES_SAMPLED = 12
_IRREGULAR = ("undecodable_packets", "corrupt_frames", "moved_timestamps", "resized_frames")
"""Counts of what makes it unsafe to seek: frames may then come out otherwise than read from the beginning."""
_FRAMES_TO_BEGIN = 4
"""So many uncompressed frames there has to be space for before work begins."""
_LEAST_SPARING = 0.8
"""Strength of steadying from which on a frame's own colour is so small a part of its average that it may be missing."""
_SEEK_BEFORE_S = 1
"""How long before the first frame that is wanted reading begins: an interlaced frame may give two."""


@dataclass(frozen=True)
class Analysis:
    """What a look at frames spread over the film says before any work: where its picture is, and whether it is grey.

    ``luma`` are those frames, as the reader gives them.
    """

    picture: Rectangle
    is_black_and_white: bool
    luma: tuple[npt.NDArray[Any], ...]


def analyse(info: FilmInfo) -> Analysis:
    """Look at a dozen frames spread over the film; raises `FilmOpenError` or `FilmDecodeError` if there are none."""
    sample = sample_frames(info, _FRAMES_SAMPLED)
    black, white = color.code_range(info.picture.bit_depth, info.picture.full_range)
    return Analysis(find_picture(sample.luma, black=black, white=white), sample.is_black_and_white, sample.luma)


def make_recombiner(info: FilmInfo, plan: OutputPlan, config: ColorizeConfig, device: torch.device) -> Recombiner:
    """The recombiner between this source and this output."""
    return Recombiner(
        bit_depth=info.picture.bit_depth,
        full_range=info.picture.full_range,
        out=PlaneFormat(plan.bit_depth, plan.full_range, plan.matrix, *plan.log2_chroma),
        mode=config.recombine,
        device=device,
        upsampling=config.chroma_upsampling,
    )


def steadying_of(info: FilmInfo, config: ColorizeConfig, engine: Engine) -> Steadying:
    """How this film's colour is steadied; the network is spared frames where its time is what the others wait for."""
    averages_many = config.temporal >= _LEAST_SPARING if config.network_frames == "auto" else config.temporal > 0
    may_spare = engine.device.type == "cpu" if config.network_frames == "auto" else config.network_frames == "fewer"
    fps = (info.average_rate or Fraction(25)) if may_spare and averages_many else None
    return Steadying(config.temporal, config.shot_consistency, fps)


def frames_expected(info: FilmInfo, config: ColorizeConfig) -> int | None:
    """About how many frames will be coloured, where the container lets one say."""
    if info.frames_estimate is None or not info.duration_s:
        return info.frames_estimate
    start_s = min(config.start_s or 0.0, info.duration_s)
    end_s = min(config.end_s if config.end_s is not None else info.duration_s, info.duration_s)
    return max(1, round(info.frames_estimate * (end_s - start_s) / info.duration_s))


@dataclass(frozen=True)
class FilmPlan:
    """A film to be coloured, and everything about it that its parts share; ``probed`` is for `open_reader`."""

    source: Path
    output: Path
    info: FilmInfo
    probed: FilmInfo | None
    plan: OutputPlan
    config: ColorizeConfig
    settings: OutputSettings
    offset_s: Fraction


def colour_part(
    film: FilmPlan,
    part: Part,
    journal: Journal,
    segment_frames: int,
    engine: Engine,
    analysis: Analysis,
    *,
    progress: Progress,
    stop: Stop,
    space: Space,
) -> Stage | None:
    """Colour what is missing of a part; returns the stage that limited the speed, None when nothing was missing.

    The segments that are in the journal are taken for whole.

    Raises `StoppedError` where ``stop`` was set in the meantime, and all that `colorize_film` raises.
    """
    journal.folder.mkdir(parents=True, exist_ok=True)
    done = journal.read()
    if done and done[-1].ends_part:
        return None
    if stop.is_set():
        raise StoppedError(f"{film.output}: stopped; the same command goes on with it")
    if done:
        progress.say(f"{film.output}: {sum(segment.frames for segment in done)} frames are done; going on behind them")
    steadies = film.config.temporal > 0 or film.config.shot_consistency
    with ExitStack() as stack:
        motion = stack.enter_context(MotionProcesses(engine.motion_processes if steadies else 0))
        recombiner = make_recombiner(film.info, film.plan, film.config, engine.device)
        colourist = Colourist(film.source, engine, recombiner, analysis.picture, motion.find_links)
        colourist.fit(analysis.luma)
        picture = film.info.picture
        space.require(_FRAMES_TO_BEGIN * picture.height_px * picture.width_px)
        task = _Task(film, part, journal, segment_frames, colourist, progress, stop, space)
        workers = stack.enter_context(Workers(engine.workers))
        if engine.device.type == "cuda":
            expected = frames_expected(film.info, film.config)
            size = engine.batch_for(picture.height_px, picture.width_px)
            liveliest = max(analysis.luma, key=lambda luma: float(luma[::8, ::8].std()))
            warm_up(
                colourist, workers, liveliest, min(size, expected or size), steadying_of(film.info, film.config, engine)
            )
        try:
            return task.run(done, workers)
        except RestartError:
            progress.say(f"{film.source}: cannot be sought in exactly; reading it from its beginning")
        try:
            return task.run(journal.read(), workers, seek=False)
        except RestartError as error:
            raise FilmDecodeError(
                f"{film.source}: gives other frames than it did when work on it was begun; remove "
                f"{journal.folder.parent} and run again"
            ) from error


@dataclass(frozen=True)
class _Task:
    """A part, and all that is needed to work on it."""

    film: FilmPlan
    part: Part
    journal: Journal
    segment_frames: int
    colourist: Colourist
    progress: Progress
    stop: Stop
    space: Space

    def run(self, done: list[Segment], workers: Workers, *, seek: bool = True) -> Stage:
        """Go on behind the segments that are done."""
        engine, picture, config = self.colourist.engine, self.film.info.picture, self.film.config
        start = done[-1].restart if done else None
        met = sum(segment.counts.get(name, 0) for segment in done for name in _IRREGULAR)
        if start is not None:
            seek = seek and not met and not self.film.info.times_in_coding_order
        begin_s = self.part.from_s if start is None else start.time_s
        if begin_s is not None:
            begin_s -= _SEEK_BEFORE_S
            if start is None:  # a part that no shot begins cuts one in its midst, after as many frames as a segment has
                lead = max(0, reach(self.film.config.temporal) - self.segment_frames)
                begin_s -= lead / (self.film.info.average_rate or Fraction(25))
        expected = frames_expected(self.film.info, self.film.config)
        steadying = steadying_of(self.film.info, config, engine)
        batch_size = engine.batch_for(picture.height_px, picture.width_px)
        with open_reader(
            self.film.source, self.film.config, begin_s if seek else None, probed=self.film.probed
        ) as reader:
            sink = SegmentSink(
                self.part,
                self.journal,
                done,
                lambda path: _segment_writer(path, self.film, self.space),
                longest=self.segment_frames,
                shortest=max(1, self.segment_frames // SHORTEST_PART),
                strength=config.temporal,
                whole_shots=config.shot_consistency,
                label=(str(engine.device), engine.precision),
                warnings=lambda: [*reader.report.warnings, *engine.warnings],
                expected=expected,
                space=self.space,
                stop=self.stop,
            )
            try:
                limiting = run_stages(
                    _FramesFrom(reader, begin_s, start),
                    sink,
                    lambda batches: colour_batches(batches, self.colourist, workers, steadying),
                    batch_size=batch_size,
                    first_batch_size=batch_size - (0 if start is None else start.number % batch_size),
                    progress=self.progress,
                    total=expected,
                )
                sink.finish(reader.report.counts())
            finally:
                sink.close()
        return limiting


class _FramesFrom:
    """A reader's frames from a restart on, whether it could seek there or not; or from ``begin_s`` on, or all."""

    def __init__(self, reader: FilmReader | SequenceReader, begin_s: Fraction | None, start: Restart | None) -> None:
        self._reader = reader
        self._begin_s = begin_s if start is None else start.time_s
        self._must_match = start is not None

    @property
    def report(self) -> ReadReport:
        """The reader's own."""
        return self._reader.report

    def __iter__(self) -> Iterator[LumaFrame]:
        begun = self._begin_s is None
        for item in self._reader:
            if isinstance(item, SidePacket):
                continue
            if not begun and self._begin_s is not None:
                if item.time_s < self._begin_s:
                    continue
                if self._must_match and item.time_s != self._begin_s:
                    raise RestartError
                begun = True
            yield item


def _segment_writer(path: Path, film: FilmPlan, space: Space) -> SegmentWriter:
    if is_pattern(film.output):
        return SequenceSegmentWriter(path, film.output, film.info, film.plan, space.wait)
    return FilmSegmentWriter(path, film.info, film.plan, film.offset_s, space.wait)
