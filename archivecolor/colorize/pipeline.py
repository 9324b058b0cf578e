"""One film from source to output: decode, colour and encode at the same time, in three threads.

    reader      FilmReader -> batches of luma frames, and the packets that came with them
    colourist   Colourist, in as many threads as there are cores: luma -> L -> ab -> planes
    writer      planes -> FilmWriter, packets copied

The channels between them are bounded, so memory does not grow with the film. An error in any of them breaks the
others off and is raised here; the output has a temporary name until it is whole.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy.typing as npt
import torch

from archivecolor import __version__, color
from archivecolor.colorize.atomic import atomic_output
from archivecolor.colorize.channel import Channel, ChannelBrokenError
from archivecolor.colorize.colourist import Colourist
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.mattes import Rectangle, find_picture
from archivecolor.colorize.places import open_reader, open_writer, place_of, plan_for
from archivecolor.colorize.recombine import PlaneFormat, Recombiner
from archivecolor.colorize.sidecar import (
    FixityInBackground,
    frame_counts,
    picture_record,
    record_of,
    write_record,
)
from archivecolor.colorize.stages import Batch, colour_batches
from archivecolor.colorize.workers import Workers
from archivecolor.config import ColorizeConfig
from archivecolor.errors import FilmEncodeError
from archivecolor.film import (
    DIGITAL_SOURCE_TYPE,
    FilmInfo,
    FilmReader,
    FilmWriter,
    LumaFrame,
    OutputPlan,
    OutputSettings,
    SequenceReader,
    SequenceWriter,
    SidePacket,
    sample_frames,
)

Stage = Literal["decoding", "colouring", "encoding"]

MADE_BY = "Colour made by archivecolor"
_WORK_ITEMS_UNDER_WAY = 2
_MOST_PACKETS_IN_A_WORK_ITEM = 1000
_FRAMES_SAMPLED = 12


class Progress(Protocol):
    """What a caller who wants to follow the work implements."""

    def update(self, frames: int, total: int | None, limiting: Stage) -> None:
        """``frames`` of about ``total`` are written; ``limiting`` is the stage that the others wait for."""


class NoProgress:
    """Follows nothing."""

    def update(self, frames: int, total: int | None, limiting: Stage) -> None:
        """Ignore it."""


@dataclass
class ColorizeReport:
    """What was done to one film or still, as shown and as kept beside it."""

    source: Path
    output: Path
    frames_read: int = 0
    frames_written: int = 0
    undecodable_packets: int = 0
    damaged_frames: int = 0
    repeated_frames: int = 0
    picture: Rectangle | None = None
    seconds: float = 0.0
    limiting: Stage | None = None
    device: str = ""
    precision: str = ""
    weights_sha256: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def frames_per_s(self) -> float:
        """Frames written a second, start-up included."""
        return self.frames_written / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping."""
        picture = None
        if self.picture is not None:
            picture = {name: getattr(self.picture, name) for name in ("top", "bottom", "left", "right")}
        return {
            "source": str(self.source),
            "output": str(self.output),
            "frames_read": self.frames_read,
            "frames_written": self.frames_written,
            "undecodable_packets": self.undecodable_packets,
            "damaged_frames": self.damaged_frames,
            "repeated_frames": self.repeated_frames,
            "picture": picture,
            "seconds": round(self.seconds, 3),
            "frames_per_s": round(self.frames_per_s, 2),
            "limiting_stage": self.limiting,
            "device": self.device,
            "precision": self.precision,
            "weights_sha256": self.weights_sha256,
            "warnings": self.warnings,
        }


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


def colorize_film(
    source: Path,
    output: Path,
    engine: Engine,
    config: ColorizeConfig,
    settings: OutputSettings | None = None,
    *,
    progress: Progress | None = None,
) -> ColorizeReport:
    """Colourise one film into ``output``, which appears under its name only once it is whole.

    Raises:
        FilmOpenError, FilmDecodeError: the source cannot be used.
        FilmEncodeError: the output cannot be written, or would not hold every frame.
        DeviceError: the device's memory does not hold a single frame.
    """
    started = time.perf_counter()
    settings = settings or OutputSettings(keep_luma=config.recombine == "luma")
    source_fixity = FixityInBackground(source)
    with open_reader(source, config) as reader:
        info = reader.info
        info.require_sdr()
        plan = plan_for(info, output, settings)
        analysis = analyse(info)
        colourist = Colourist(source, engine, make_recombiner(info, plan, config, engine.device), analysis.picture)
        colourist.fit(analysis.luma)
        tags = provenance(info, engine, config, settings)
        engine.warnings.clear()
        with atomic_output(place_of(output)) as partial:
            with (
                open_writer(partial, output, info, plan, reader.time_offset_s, tags) as writer,
                Workers(engine.workers) as workers,
            ):
                limiting = run_stages(
                    reader,
                    writer,
                    lambda batches: colour_batches(
                        batches, colourist, workers, config.temporal, level=config.shot_consistency
                    ),
                    batch_size=engine.batch_for(info.picture.height_px, info.picture.width_px),
                    progress=progress or NoProgress(),
                    total=frames_expected(info, config),
                )
            report = ColorizeReport(
                source=source,
                output=output,
                frames_read=reader.report.frames,
                frames_written=writer.frames,
                undecodable_packets=reader.report.undecodable_packets,
                damaged_frames=reader.report.corrupt_frames,
                repeated_frames=colourist.frames_repeated,
                picture=analysis.picture,
                limiting=limiting,
                device=str(engine.device),
                precision=engine.precision,
                weights_sha256=engine.weights_sha256,
                warnings=[
                    *plan_warnings(plan),
                    *reader.report.warnings,
                    *writer.warnings,
                    *colourist.warnings,
                    *engine.warnings,
                ],
            )
            if report.undecodable_packets:
                report.warnings.append(f"{report.undecodable_packets} packets of the picture could not be decoded")
            if not analysis.is_black_and_white:
                report.warnings.append("the source is in colour; only its luma was used")
            if report.frames_written != reader.report.given:
                raise FilmEncodeError(
                    f"{output}: {reader.report.given} frames were read but {report.frames_written} written"
                )
            report.seconds = time.perf_counter() - started
            record = record_of(
                source=source,
                source_fixity=source_fixity.result(),
                output=place_of(output),
                written=partial,
                engine=engine,
                config=config,
                settings=asdict(settings),
                seconds=report.seconds,
                frames=frame_counts(reader.report, writer.frames, colourist.frames_repeated),
                warnings=report.warnings,
                picture=picture_record(info, plan),
                time={"offset_s": str(reader.time_offset_s), "time_base": str(info.time_base)},
                streams=writer.stream_map(),
            )
        write_record(place_of(output), record)
    return report


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


def plan_warnings(plan: OutputPlan) -> list[str]:
    """What an output will not be able to hold or say, in whole sentences."""
    lost = [f"{entry.kind} stream {entry.index} ({entry.codec}) left out: {entry.reason}" for entry in plan.left_out]
    changed = [f"{c.kind} stream {c.index} ({c.codec}) does not fit: converted to {c.in_words}" for c in plan.converted]
    return [*plan.warnings, *changed, *lost]


def frames_expected(info: FilmInfo, config: ColorizeConfig) -> int | None:
    """About how many frames will be coloured, where the container lets one say."""
    if info.frames_estimate is None or not info.duration_s:
        return info.frames_estimate
    start_s = min(config.start_s or 0.0, info.duration_s)
    end_s = min(config.end_s if config.end_s is not None else info.duration_s, info.duration_s)
    return max(1, round(info.frames_estimate * (end_s - start_s) / info.duration_s))


def settings_fingerprint(engine: Engine, config: ColorizeConfig, settings: OutputSettings) -> str:
    """Eight hexadecimal digits that change with anything that decides what an output looks like."""
    size, time = (config.render_size_px, config.fit), (config.temporal, config.shot_consistency)
    made = (engine.weights_sha256, size, config.saturation, config.recombine, time)
    cut = (config.start_s, config.end_s)
    return hashlib.sha256(repr((made, config.chroma_upsampling, cut, config.fields, settings)).encode()).hexdigest()[:8]


def provenance(info: FilmInfo, engine: Engine, config: ColorizeConfig, settings: OutputSettings) -> dict[str, str]:
    """Tags that make AI-made colour recognisable as such; a comment that the source has stays in front."""
    own = next((text for key, text in info.metadata.items() if key.lower() == "comment"), "")
    made = (
        f"{MADE_BY} {__version__} (weights {engine.weights_path.stem}, "
        f"SHA-256 {engine.weights_sha256[:16]}, recombine {config.recombine}, "
        f"settings {settings_fingerprint(engine, config, settings)}); "
        "the lightness is the source's. An access copy, not a replacement of the original. "
        f"Digital source type: {DIGITAL_SOURCE_TYPE.rpartition('/')[2]}."
    )
    return {"comment": f"{own} | {made}" if own else made}


def run_stages(
    reader: FilmReader | SequenceReader,
    writer: FilmWriter | SequenceWriter,
    colour: Callable[[Iterable[Batch]], Iterator[Batch]],
    *,
    batch_size: int,
    progress: Progress,
    total: int | None,
) -> Stage:
    """Drive the three threads until the film's end; returns the stage that limited the speed.

    ``colour`` is given batches with their frames and gives them back, in order, with their planes. The calling thread
    only waits, so that an interrupt finds it holding no lock.
    """
    decoded: Channel[Batch] = Channel(_WORK_ITEMS_UNDER_WAY)
    coloured: Channel[Batch] = Channel(_WORK_ITEMS_UNDER_WAY)
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None], finished: threading.Event) -> None:
        try:
            work()
        except ChannelBrokenError:
            pass  # another thread failed first; its own error is in failures
        except BaseException as error:
            failures.append(error)
            decoded.abort()
            coloured.abort()
        finally:
            finished.set()

    def read() -> None:
        for batch in _batches(reader, batch_size):
            decoded.put(batch)
        decoded.close()

    def limiting() -> Stage:
        if decoded.waited_to_get_s > coloured.waited_to_put_s:
            return "decoding" if decoded.waited_to_get_s > coloured.waited_to_get_s else "colouring"
        return "encoding" if coloured.waited_to_put_s > coloured.waited_to_get_s else "colouring"

    def make_planes() -> None:
        for batch in colour(decoded):
            coloured.put(batch)
        coloured.close()

    def write() -> None:
        for batch in coloured:
            for packet in batch.packets:
                writer.copy(packet)
            frames = iter(batch.frames)
            for some in batch.planes:
                for y, cb, cr in zip(*some, strict=True):
                    frame = next(frames)
                    writer.write(y, cb, cr, frame.pts_ticks, frame.time_base, frame.duration_ticks)
            progress.update(writer.frames, total, limiting())

    started: list[tuple[threading.Thread, threading.Event]] = []
    try:
        for name, work in (("reader", read), ("colourist", make_planes), ("writer", write)):
            finished = threading.Event()
            thread = threading.Thread(target=guarded, args=(work, finished), name=name, daemon=True)
            started.append((thread, finished))
            thread.start()
        for _, finished in started:
            finished.wait()
    finally:
        # Reached with a thread at work only by an interrupt; the files that it uses must not be closed under it.
        decoded.abort()
        coloured.abort()
        _wait_for(started)
    if failures:
        raise failures[0]
    return limiting()


def _wait_for(started: list[tuple[threading.Thread, threading.Event]]) -> None:
    """Wait for threads whatever interrupts come; they end soon once their channels are broken off.

    An interrupt may have struck while a thread was being started, when ``is_alive`` is not to be trusted yet; a
    second later it is.
    """
    for thread, finished in started:
        while True:
            try:
                if finished.wait(1) or not thread.is_alive():
                    break
            except KeyboardInterrupt:
                continue


def _batches(items: Iterable[LumaFrame | SidePacket], size: int) -> Iterator[Batch]:
    """Group what the reader yields into work items of at most ``size`` frames."""
    batch = Batch()
    for item in items:
        if isinstance(item, LumaFrame):
            batch.frames.append(item)
        else:
            batch.packets.append(item)
        if len(batch.frames) == size or len(batch.packets) == _MOST_PACKETS_IN_A_WORK_ITEM:
            yield batch
            batch = Batch()
    if batch.frames or batch.packets:
        yield batch
