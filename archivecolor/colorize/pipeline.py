"""One film from source to output: its picture coloured in segments, then joined with its sound and all the rest.

    parts   the picture, in segments that are checked and journalled one by one (`archivecolor.colorize.segments`)
    join    segments and the source's other streams -> FilmWriter, packets copied; the film gets its name when whole

Whatever interrupts the work, the same call goes on behind the last segment that was journalled.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from archivecolor import __version__
from archivecolor.colorize.atomic import atomic_output, require_place
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.journal import Segment
from archivecolor.colorize.parts import Analysis, FilmPlan, analyse, colour_part
from archivecolor.colorize.places import open_reader, open_writer, place_of, plan_for
from archivecolor.colorize.progress import NoProgress, Progress, Stage, Stop, never
from archivecolor.colorize.report import ColorizeReport
from archivecolor.colorize.sidecar import (
    MADE_BY,
    FixityInBackground,
    Model,
    frame_counts,
    picture_record,
    record_of,
    settings_fingerprint,
    write_record,
)
from archivecolor.colorize.space import Space
from archivecolor.colorize.work import WHOLE, Identity, Part, WorkFolder
from archivecolor.config import ColorizeConfig, WorkConfig
from archivecolor.disk import ends_sha256
from archivecolor.errors import FilmEncodeError
from archivecolor.film import (
    DIGITAL_SOURCE_TYPE,
    FilmInfo,
    FilmReader,
    FilmWriter,
    OutputPlan,
    OutputSettings,
    SegmentFile,
    SequenceReader,
    SequenceWriter,
    SidePacket,
    check_film,
    exact_time,
    interleave,
    is_pattern,
)


def colorize_film(
    source: Path,
    output: Path,
    engine: Engine,
    config: ColorizeConfig,
    settings: OutputSettings | None = None,
    *,
    work: WorkConfig | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> ColorizeReport:
    """Colourise one film into ``output``, which appears under its name only once it is whole.

    Work that was begun earlier with the same source, weights and settings goes on where it ended. Once ``stop`` is
    set, the segment at hand is finished and `StoppedError` raised.

    Raises:
        FilmOpenError, FilmDecodeError: the source cannot be used.
        FilmEncodeError: the output cannot be written, or would not hold every frame.
        DeviceError: the device's memory does not hold a single frame.
        BusyError: another process is at work on the same output.
        StoppedError: it was asked to stop.
    """
    engine.warnings.clear()
    stop = stop or never()
    progress = progress or NoProgress()

    def colour(film: FilmPlan, folder: WorkFolder, analysis: Analysis, space: Space) -> Stage | None:
        limiting = None
        for part in folder.parts:
            journal = folder.journal(part)
            limiting = colour_part(
                film,
                part,
                journal,
                folder.segment_frames,
                engine,
                analysis,
                progress=progress,
                stop=stop,
                space=space,
            )
        return limiting

    return make_film(source, output, engine, config, settings, work=work, progress=progress, stop=stop, colour=colour)


def make_film(
    source: Path,
    output: Path,
    model: Model,
    config: ColorizeConfig,
    settings: OutputSettings | None,
    *,
    work: WorkConfig | None,
    progress: Progress,
    stop: Stop,
    colour: Callable[[FilmPlan, WorkFolder, Analysis, Space], Stage | None],
    plan: Callable[[FilmPlan], Sequence[Part]] = lambda film: WHOLE,
) -> ColorizeReport:
    """`colorize_film`, whoever does the colouring: ``colour`` makes the segments of all parts that ``plan`` plans."""
    started = time.perf_counter()
    settings = settings or OutputSettings(keep_luma=config.recombine == "luma")
    work = work or WorkConfig()
    source_fixity = FixityInBackground(source)
    film = plan_film(source, output, config, settings)
    analysis = analyse(film.info)
    place = place_of(output)
    for text in (known := plan_warnings(film.plan)):
        progress.say(f"warning: {source}: {text}")
    with ExitStack() as stack:
        folder = WorkFolder(place, work)
        space = Space(folder.path, progress.say, stop, work.wait_for_space_s, output=place.parent)
        space.patiently(lambda: require_place(place))
        space.patiently(lambda: stack.enter_context(folder))
        changes = space.patiently(lambda: folder.begin(identity_of(film, model), plan(film)))
        if changes:
            progress.say(f"{output}: work begun earlier is of no use ({', '.join(changes)} changed); starting afresh")
        kept = sum(segment.frames for part in folder.parts for segment in folder.journal(part).read_checked())
        limiting = colour(film, folder, analysis, space)
        report = ColorizeReport(source, output, frames_kept=kept, limiting=limiting, said_before=known)
        finish_film(film, folder, model, analysis, source_fixity, space, report, started)
    return report


def plan_film(source: Path, output: Path, config: ColorizeConfig, settings: OutputSettings) -> FilmPlan:
    """Decide all about a film before any work; raises `FilmOpenError` and `FilmEncodeError`."""
    with open_reader(source, config) as reader:
        info, offset_s = reader.info, reader.time_offset_s
        probed = reader.probed if isinstance(reader, FilmReader) else None
    info.require_sdr()
    plan = plan_for(info, output, settings)
    return FilmPlan(source, output, info, probed, plan, config, settings, offset_s)


def identity_of(film: FilmPlan, model: Model) -> Identity:
    """What the work on a film is of; the source by size, time of change and its ends, as reading it all takes long."""
    files = film.info.files or (film.source,)
    stats = [file.stat() for file in files]
    size, changed = sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)
    ends = ends_sha256(files[0])[:16], ends_sha256(files[-1])[:16]
    source = f"{len(files)} files, {size} bytes, changed {changed}, {' to '.join(dict.fromkeys(ends))}"
    settings = settings_fingerprint(model, film.config, film.settings)
    return Identity(source, model.weights_sha256, settings, __version__)


def finish_film(
    film: FilmPlan,
    folder: WorkFolder,
    model: Model,
    analysis: Analysis,
    source_fixity: FixityInBackground,
    space: Space,
    report: ColorizeReport,
    started: float,
) -> None:
    """Join the segments to the film, put it and its record in place, and fill in ``report``."""
    segments = _segments_in_order(film, folder)
    counts = Counter[str]()
    for segment, _ in segments:
        counts.update(segment.counts)
    report.frames_read, report.repeated_frames = counts["frames"], counts["repeated"]
    report.carried_frames = counts["carried"]
    report.undecodable_packets, report.damaged_frames = counts["undecodable_packets"], counts["corrupt_frames"]
    report.picture, report.weights_sha256 = analysis.picture, model.weights_sha256
    report.device = ", ".join(dict.fromkeys(segment.device for segment, _ in segments))
    report.precision = ", ".join(dict.fromkeys(segment.precision for segment, _ in segments))
    place = place_of(film.output)

    def put_in_place() -> dict[str, Any]:
        with atomic_output(place) as partial:
            writer = _join(film, segments, provenance(film.info, model, film.config, film.settings), partial)
            report.frames_written = writer.frames
            report.warnings = [
                *plan_warnings(film.plan),
                *dict.fromkeys(text for segment, _ in segments for text in segment.warnings),
                *writer.warnings,
                *_remarks(counts, analysis),
            ]
            report.seconds = time.perf_counter() - started
            record = record_of(
                source=film.source,
                source_fixity=source_fixity.result(),
                output=place,
                written=partial,
                model=model,
                device=report.device,
                precision=report.precision,
                config=film.config,
                settings=film.settings,
                seconds=report.seconds,
                frames=frame_counts(counts, writer.frames),
                warnings=report.warnings,
                picture=picture_record(film.info, film.plan),
                time={"offset_s": str(film.offset_s), "time_base": str(film.info.time_base)},
                streams=writer.stream_map(),
            )
            if is_pattern(film.output):  # a folder without its record would not be known again as ours to replace
                write_record(place, record)
            return record

    there = space.at(place.parent)
    if not is_pattern(film.output):
        there.require(sum(segment.size_bytes for segment, _ in segments))
    record = there.patiently(put_in_place)
    there.patiently(lambda: write_record(place, record))
    folder.finished = True


def _segments_in_order(film: FilmPlan, folder: WorkFolder) -> list[tuple[Segment, Path]]:
    """All segments and where they are; raises `FilmEncodeError` where they are not one film without a gap."""
    found: list[tuple[Segment, Path]] = []
    for part in folder.parts:
        journal = folder.journal(part)
        for segment in journal.read():
            before = found[-1][0] if found else None
            if before is not None and segment.frames and before.next_s != segment.first_s:
                raise FilmEncodeError(
                    f"{film.output}: the parts of the film do not meet at {float(segment.first_s):.3f} s; remove "
                    f"{folder.path} and run again, without --cluster"
                )
            if segment.frames or before is None:
                found.append((segment, journal.folder / segment.name))
    if not found or found[-1][0].next_s is not None:
        raise FilmEncodeError(f"{film.output}: its end is missing; run again")
    return found


def _join(
    film: FilmPlan, segments: list[tuple[Segment, Path]], tags: dict[str, str], partial: Path
) -> FilmWriter | SequenceWriter:
    """Write the whole film to ``partial`` from its segments and the source's other streams."""
    info, end_s = film.info, None
    if film.config.end_s is not None:
        end_s = info.first_pts_ticks * info.time_base + exact_time(film.config.end_s)
    with open_writer(partial, film.output, info, film.plan, film.offset_s, end_s, tags) as writer:
        if isinstance(writer, SequenceWriter):
            for _, path in segments:
                writer.put(path)
        else:
            with open_reader(film.source, film.config, probed=film.probed) as reader:
                files = (SegmentFile.open(path) for _, path in segments)
                for item in interleave(files, _side_packets(reader, segments), film.offset_s):
                    if isinstance(item, SidePacket):
                        writer.copy(item)
                    else:
                        writer.put(*item)
    expected = sum(segment.frames for segment, _ in segments)
    if writer.frames != expected:
        raise FilmEncodeError(f"{film.output}: {expected} frames were coloured but {writer.frames} written")
    if isinstance(writer, FilmWriter):
        check_film(writer, segments[-1][0].last_s - segments[0][0].first_s, film.output)
    return writer


def _side_packets(reader: FilmReader | SequenceReader, segments: list[tuple[Segment, Path]]) -> Iterator[SidePacket]:
    """The packets of all other streams; where the film's clock starts anew, the picture tells by how much they move."""
    if any(segment.counts.get("moved_timestamps") for segment, _ in segments):
        return (item for item in reader if isinstance(item, SidePacket))
    return reader.side_packets()


def _remarks(counts: Counter[str], analysis: Analysis) -> list[str]:
    """What was met, in whole sentences."""
    remarks = []
    if without := counts["without_bars"]:
        remarks.append(f"{without} frames reach into the film's black bars; they were coloured as a whole")
    if lost := counts["undecodable_packets"]:
        remarks.append(f"{lost} packets of the picture could not be decoded")
    if not analysis.is_black_and_white:
        remarks.append("the source is in colour; only its luma was used")
    return remarks


def plan_warnings(plan: OutputPlan) -> list[str]:
    """What an output will not be able to hold or say, in whole sentences."""
    lost = [f"{entry.kind} stream {entry.index} ({entry.codec}) left out: {entry.reason}" for entry in plan.left_out]
    changed = [f"{c.kind} stream {c.index} ({c.codec}) does not fit: converted to {c.in_words}" for c in plan.converted]
    return [*plan.warnings, *changed, *lost]


def provenance(info: FilmInfo, model: Model, config: ColorizeConfig, settings: OutputSettings) -> dict[str, str]:
    """Tags that make AI-made colour recognisable as such; a comment that the source has stays in front."""
    own = next((text for key, text in info.metadata.items() if key.lower() == "comment"), "")
    made = (
        f"{MADE_BY} {__version__} (weights {model.weights_path.stem}, "
        f"SHA-256 {model.weights_sha256[:16]}, recombine {config.recombine}, "
        f"settings {settings_fingerprint(model, config, settings)}); "
        "the lightness is the source's. An access copy, not a replacement of the original. "
        f"Digital source type: {DIGITAL_SOURCE_TYPE.rpartition('/')[2]}."
    )
    return {"comment": f"{own} | {made}" if own else made}
