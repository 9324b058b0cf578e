"""``archivecolor verify``: an output held against its sidecar and, where it is still there, against its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from archivecolor.colorize.catalogue import NAME as CATALOGUE
from archivecolor.colorize.catalogue import Catalogue
from archivecolor.colorize.places import open_reader, place_of
from archivecolor.colorize.sidecar import fixity, read_record, sidecar_path
from archivecolor.config import ColorizeConfig
from archivecolor.errors import DataError, FilmDecodeError, FilmOpenError
from archivecolor.film import (
    EMPTY_BYTES,
    FilmReader,
    LumaFrame,
    SequenceReader,
    SidePacket,
    is_pattern,
    is_still,
    read_still,
)


@dataclass(frozen=True)
class Check:
    """One thing looked at; ``passed`` is None where it could not be looked at, and ``detail`` says why."""

    name: str
    passed: bool | None
    detail: str


@dataclass
class Verification:
    """All checks of one output."""

    output: Path
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed is not False for check in self.checks)

    def add(self, name: str, passed: bool | None, detail: str) -> None:
        """Note a check."""
        self.checks.append(Check(name, passed, detail))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping."""
        checks = [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in self.checks]
        return {"output": str(self.output), "passed": self.passed, "checks": checks}


def outputs_of(path: Path) -> list[Path]:
    """The outputs that ``path`` means: itself, the folder that a pattern's frames fill, or all that a folder holds.

    A folder's are those that have a record beside them, at any depth, and those that its catalogue says are coloured,
    whether they are there or not. Raises `DataError` where it holds none.
    """
    place = place_of(path)
    is_shelf = (place / CATALOGUE).exists()
    if is_pattern(path) or not place.is_dir() or (sidecar_path(place).exists() and not is_shelf):
        return [place]
    records = [file.with_name(file.name.removesuffix(".json")) for file in place.rglob("*.json")]
    found = {output for output in records if output.exists() or _is_recorded(output)}
    if is_shelf:
        with Catalogue(place, read_only=True) as catalogue:
            found |= {place / entry.output for entry in catalogue.entries() if entry.state == "coloured"}
    if not found:
        raise DataError(f"{place}: holds no outputs of colorize that have their sidecars (OUTPUT.json) beside them")
    return sorted(found)


def _is_recorded(output: Path) -> bool:
    try:
        read_record(output)
    except DataError:
        return False
    return True


def verify(output: Path, source: Path | None = None) -> Verification:
    """Check ``output`` against the record beside it, and frame by frame against its source.

    ``source`` is where the source lies now; by default where it lay when it was coloured. Every frame of both is
    decoded. What cannot be checked, because the source is gone, is said and does not fail.

    Raises:
        DataError: the output or its record is not there or cannot be read.
    """
    if not output.exists():
        raise DataError(f"{output}: is not there")
    record = read_record(output)
    found = Verification(output)
    try:
        _check_fixity(found, "output is unchanged", output, record["output"])
        path = Path(source or record["source"]["path"])
        there = path.exists() or (is_pattern(path) and path.parent.is_dir())
        if there:
            _check_fixity(found, "source is the one that was coloured", path, record["source"])
        else:
            found.add("source is the one that was coloured", None, f"{path} is not there; name it with --source")
        if output.is_dir():
            _check_sequence(found, output, record)
        elif is_still(output):
            _check_still(found, output, path)
        else:
            _check_film(found, output, path if there else None, record)
    except FilmOpenError as error:
        found.add("files can be read", False, str(error))
    except (KeyError, TypeError) as error:
        raise DataError(f"{output}: its sidecar lacks what a check needs ({error})") from error
    except OSError as error:
        raise DataError(f"{error.filename or output}: cannot be read ({error.strerror})") from error
    return found


def _check_fixity(found: Verification, name: str, path: Path, recorded: dict[str, Any]) -> None:
    now = fixity(path)
    if now["size_bytes"] != recorded["size_bytes"]:
        found.add(name, False, f"{path}: {now['size_bytes']} bytes, not {recorded['size_bytes']}")
    elif now["sha256"] != recorded["sha256"]:
        found.add(name, False, f"{path}: SHA-256 is {now['sha256'][:16]}..., not {recorded['sha256'][:16]}...")
    else:
        found.add(name, True, f"SHA-256 {now['sha256'][:16]}...")


def _check_sequence(found: Verification, output: Path, record: dict[str, Any]) -> None:
    with SequenceReader(output, Fraction(1)) as reader:
        count = sum(isinstance(item, LumaFrame) for item in reader)
    written, broken = record["frames"]["written"], reader.report.warnings
    found.add("frame count is the sidecar's", count == written, f"{count} of {written}")
    found.add("every frame decodes", not broken, "; ".join(broken) or "no damage")


def _check_still(found: Verification, output: Path, source: Path) -> None:
    try:
        made = read_still(output)
        found.add("picture decodes", True, f"{made.luma.shape[1]}x{made.luma.shape[0]}")
        if source.exists():
            same = read_still(source).luma.shape == made.luma.shape
            found.add("size is the source's", same, "same" if same else "differs")
    except FilmOpenError as error:
        found.add("picture decodes", False, str(error))


class _Track:
    """What has been read of one file so far: its frames, and the times of the other streams' packets."""

    def __init__(self, reader: FilmReader | SequenceReader) -> None:
        self.reader = reader
        self.packets: dict[int, list[Fraction | None]] = {}
        self.bytes: Counter[int] = Counter()
        self.frames = 0

    def __iter__(self) -> Iterator[LumaFrame]:
        for item in self.reader:
            if isinstance(item, SidePacket):
                packet = item.packet
                if packet.size <= EMPTY_BYTES:
                    continue
                pts = packet.pts if packet.pts is not None else packet.dts
                time_s = None if pts is None else pts * packet.time_base - self.reader.time_offset_s
                self.bytes[item.stream_index] += packet.size
                self.packets.setdefault(item.stream_index, []).append(time_s)
            else:
                self.frames += 1
                yield item


def _check_film(found: Verification, output: Path, source: Path | None, record: dict[str, Any]) -> None:
    settings = record["settings"]
    keeps_luma = settings["recombine"] == "luma"
    try:
        with FilmReader(output) as made_reader:
            made = _Track(made_reader)
            if source is None:
                for _ in made:
                    pass
                found.add("times are the source's", None, "the source is not there")
            else:
                known = {entry.name for entry in fields(ColorizeConfig)}
                config = ColorizeConfig(**{name: value for name, value in settings.items() if name in known})
                with open_reader(source, config) as source_reader:
                    original = _Track(source_reader)
                    _compare_frames(found, original, made, keeps_luma and record["picture"]["lossless"])
                    if keeps_luma and not record["picture"]["lossless"]:
                        found.add("luma is the source's", None, f"{record['picture']['encoder']} is lossy")
                    _compare_packets(found, original, made, record["streams"])
            _check_decoding(found, made, record)
            _check_streams(found, made, record["streams"])
    except (FilmOpenError, FilmDecodeError) as error:
        found.add("decodes", False, str(error))


def _compare_frames(found: Verification, original: _Track, made: _Track, keeps_luma: bool) -> None:
    tick_s = made.reader.info.time_base
    worst_s, differing = Fraction(0), 0
    offset_s = original.reader.time_offset_s
    theirs, ours = iter(original), iter(made)
    while (before := next(theirs, None)) is not None and (after := next(ours, None)) is not None:
        worst_s = max(worst_s, abs(before.time_s - offset_s - after.time_s))
        differing += keeps_luma and not np.array_equal(before.luma, after.luma)
    for _ in theirs:
        pass
    for _ in ours:
        pass
    same = original.frames == made.frames
    found.add("a frame for each of the source's", same, f"{original.frames} in the source, {made.frames} in the output")
    if same:
        # Frames that shared a time in the source were moved by one of its ticks, which Matroska's may not tell apart.
        exact = worst_s <= tick_s * (3 if original.reader.report.moved_timestamps else 1)
        found.add("times are the source's", exact, f"to within {float(worst_s) * 1000:.3f} ms")
        if keeps_luma:
            report = original.reader.report
            detail = f"{differing} frames differ" if differing else "bit for bit in every frame"
            passed: bool | None = not differing
            if differing and report.undecodable_packets + report.corrupt_frames:
                passed, detail = None, f"{detail}; the source is damaged, which decoders conceal otherwise each time"
            found.add("luma is the source's", passed, detail)


def _compare_packets(found: Verification, original: _Track, made: _Track, streams: list[dict[str, Any]]) -> None:
    for stream in streams:
        if stream["action"] != "copied" or stream["output_index"] is None:
            continue
        name = f"{stream['kind']} stream {stream['source_index']} is complete and in step"
        before = original.packets.get(stream["source_index"], [])[stream.get("hidden_packets", 0) :]
        after = made.packets.get(stream["output_index"], [])
        # QuickTime cuts PCM into packets of its own: then all bytes are to be there, and the first in step.
        added = stream.get("added_bytes", 0)  # silence for gaps
        there = original.bytes[stream["source_index"]] + added == made.bytes[stream["output_index"]]
        recut = there and before and after
        if len(before) != len(after) and not recut:
            found.add(name, False, f"{len(before)} packets in the source, {len(after)} in the output")
            continue
        pairs = zip(before, after, strict=True) if len(before) == len(after) and not added else [(before[0], after[0])]
        off = [abs(a - b) for a, b in pairs if a is not None and b is not None]
        worst_s = max(off, default=Fraction(0))
        most_s = Fraction(1, 500) + Fraction(stream.get("moved_s", 0))  # those that went back in time
        found.add(name, worst_s <= most_s, f"{len(after)} packets, to within {float(worst_s) * 1000:.3f} ms")


def _check_decoding(found: Verification, made: _Track, record: dict[str, Any]) -> None:
    written, report = record["frames"]["written"], made.reader.report
    found.add("frame count is the sidecar's", made.frames == written, f"{made.frames} of {written}")
    damaged = report.undecodable_packets + report.corrupt_frames
    name = "every slice has its CRC right" if record["picture"]["encoder"] == "ffv1" else "every frame decodes"
    found.add(name, not damaged, f"{damaged} damaged" if damaged else "no damage")


def _check_streams(found: Verification, made: _Track, streams: list[dict[str, Any]]) -> None:
    there = {stream.index: stream for stream in made.reader.info.streams}
    for stream in streams:
        index = stream["output_index"]
        if index is None or stream["action"] == "coloured":
            continue
        name = f"{stream['kind']} stream {stream['source_index']} is in the output"
        count = len(made.packets.get(index, []))
        if stream["kind"] == "audio" and not stream["packets"]:
            found.add(name, None, "it is empty, as the sidecar says")
        elif index not in there or there[index].kind != stream["kind"]:
            found.add(name, False, "it is not there")
        elif count != stream["packets"] and made.bytes[index] != stream["bytes"]:
            found.add(name, False, f"{count} packets, not {stream['packets']}")
        else:
            found.add(name, True, f"{there[index].codec}, {count} packets")
