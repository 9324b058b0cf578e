"""Image sequences: numbered DPX, TIFF, PNG or JPEG files as a film, each frame a file of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final

import av
import av.error

from archivecolor.errors import ConfigError, FilmDecodeError, FilmOpenError
from archivecolor.film.dpx import DpxHeader
from archivecolor.film.frames import LumaFrame, ReadReport, SidePacket
from archivecolor.film.info import SEQUENCE, FilmInfo, Picture, StreamInfo
from archivecolor.film.opening import in_words
from archivecolor.film.pixels import Plane, UnusablePixelFormatError, chroma_deviation, luma_plane, pixel_format
from archivecolor.film.reader import exact_time
from archivecolor.film.stills import read_still

SEQUENCE_EXTENSIONS: Final = frozenset({".dpx", ".tif", ".tiff", ".png", ".jpg", ".jpeg"})
_PATTERN: Final = re.compile(r"%(0(\d+))?d")
_NUMBER: Final = re.compile(r"(\d+)$")
_LOGARITHMIC: Final = (9, 10)  # H.273 transfer: what FFmpeg makes of a DPX header's "logarithmic" and printing density
_MOST_NAMED: Final = 3
_FEWEST_OF_A_FILM: Final = 12


@dataclass(frozen=True)
class SequenceFrame:
    """One decoded file: luma as a film's, its pixel format, and how far its colour is from neutral (8-bit codes)."""

    luma: Plane
    pix_fmt: str
    bit_depth: int
    chroma_deviation: float
    is_logarithmic: bool = False
    warnings: tuple[str, ...] = ()


def is_pattern(path: Path) -> bool:
    """Whether a name stands for numbered files: ``%d`` or ``%06d`` in it, and no file is called just that."""
    return _PATTERN.search(path.name) is not None and not path.is_file()


def numbered_name(pattern: Path, number: int) -> str:
    """The name of a frame; anything else in the pattern stays as it is."""
    return _PATTERN.sub(lambda match: f"{number:0{match[2] or 1}}", pattern.name, count=1)


def holds_frames(path: Path) -> bool:
    """Whether ``path`` is a folder with numbered frames in it."""
    return path.is_dir() and any(
        file.suffix.lower() in SEQUENCE_EXTENSIONS and _NUMBER.search(file.stem) for file in path.iterdir()
    )


def looks_like_a_film(folder: Path) -> bool:
    """Whether a folder's pictures are numbered in a row, and more of them than photographs tend to be."""
    try:
        return len(sequence_files(folder)) >= _FEWEST_OF_A_FILM
    except (FilmOpenError, OSError):
        return False


def sequence_files(path: Path) -> dict[int, Path]:
    """The files of a sequence by their number, in its order; ``path`` is a pattern, or a folder of one sequence.

    Raises `FilmOpenError` where there is none, where a folder holds more than one, and where a number is missing.
    """
    found = _matching(path) if is_pattern(path) else _numbered(path)
    numbers = sorted(found)
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if missing:
        before = found[max(number for number in numbers if number < missing[0])]
        names = ", ".join(map(str, missing[:_MOST_NAMED])) + (", ..." if len(missing) > _MOST_NAMED else "")
        count = "frame" if len(missing) == 1 else f"{len(missing)} frames:"
        raise FilmOpenError(
            f"{path}: {count} {names} missing (after {before.name}); supply them, or split the sequence"
        )
    return {number: found[number] for number in numbers}


def _matching(path: Path) -> dict[int, Path]:
    match = _PATTERN.search(path.name)
    assert match is not None
    digits = rf"(\d{{{match[2]},}})" if match[2] else r"(\d+)"
    name = re.compile(re.escape(path.name[: match.start()]) + digits + re.escape(path.name[match.end() :]))
    if not path.parent.is_dir():
        raise FilmOpenError(f"{path.parent}: no such folder")
    found = {int(m[1]): file for file in path.parent.iterdir() if (m := name.fullmatch(file.name)) and file.is_file()}
    if not found:
        raise FilmOpenError(f"{path}: no file of that pattern in {path.parent}")
    return found


def _numbered(folder: Path) -> dict[int, Path]:
    found: dict[tuple[str, str], dict[int, Path]] = {}
    for file in sorted(folder.iterdir()):
        number = _NUMBER.search(file.stem)
        if file.suffix.lower() in SEQUENCE_EXTENSIONS and number is not None and not file.name.startswith("."):
            found.setdefault((file.stem[: number.start()], file.suffix.lower()), {})[int(number[1])] = file
    if not found:
        kinds = ", ".join(sorted(SEQUENCE_EXTENSIONS))
        raise FilmOpenError(f"{folder}: holds no numbered frames ({kinds})")
    if len(found) > 1:
        names = ", ".join(f"{stem}...{suffix}" for stem, suffix in sorted(found)[:_MOST_NAMED])
        raise FilmOpenError(
            f"{folder}: holds several sequences ({names}); name one as a pattern, e.g. {folder}/%06d.tif"
        )
    return next(iter(found.values()))


def read_frame(path: Path, matrix: str = "bt709") -> SequenceFrame:
    """Decode one file of a sequence; raises `FilmOpenError` naming it."""
    if path.suffix.lower() != ".dpx":
        still = read_still(path)
        name = "gray" if still.bit_depth == 8 else "gray16le"
        return SequenceFrame(still.luma, name, still.bit_depth, still.chroma_deviation, warnings=still.warnings)
    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            if container.format.name != "dpx_pipe":
                raise FilmOpenError(f"{path}: is not a DPX file")
            frame = next(container.decode(video=0))
        known = pixel_format(frame.format.name)
        luma = luma_plane(frame, matrix)
    except UnusablePixelFormatError as error:
        raise FilmOpenError(f"{path}: {error} cannot be colourised; convert it to 8..16 bit first") from error
    except StopIteration as error:
        raise FilmOpenError(f"{path}: holds no picture") from error
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise FilmOpenError(f"{path}: cannot be decoded ({in_words(error)}); is it complete?") from error
    if frame.is_corrupt:
        raise FilmOpenError(f"{path}: is damaged or cut short")
    logarithmic = int(frame.color_trc) in _LOGARITHMIC
    return SequenceFrame(luma, known.name, known.bit_depth, chroma_deviation(frame), logarithmic)


def probe_sequence(path: Path, rate: Fraction | None) -> FilmInfo:
    """What is in a sequence, by its names and its first frame; ``rate`` is in frames a second.

    Raises `FilmOpenError` (see `sequence_files`), and `ConfigError` where the rate is not given.
    """
    files = sequence_files(path)
    if rate is None:
        raise ConfigError(f"{path}: an image sequence does not say how fast it is; use --fps, e.g. --fps 24")
    first_file = next(iter(files.values()))
    first = read_frame(first_file)
    height, width = first.luma.shape
    is_full = pixel_format(first.pix_fmt).full_range_untagged
    header = DpxHeader.of(first_file) if first_file.suffix.lower() == ".dpx" else None
    tags = {} if header is None else {"timecode": header.timecode, "copyright": header.copyright}
    picture = Picture(
        width_px=width,
        height_px=height,
        pix_fmt=first.pix_fmt,
        bit_depth=first.bit_depth,
        full_range=is_full,
        matrix="bt709",
        tagged_primaries=1,
        tagged_transfer=13,
        sample_aspect_ratio=None if header is None else header.sample_aspect_ratio,
    )
    codec = first_file.suffix.lower().lstrip(".")
    return FilmInfo(
        path=path,
        container=SEQUENCE,
        container_name="image sequence",
        duration_s=float(len(files) / rate),
        size_bytes=sum(file.stat().st_size for file in files.values()),
        first_pts_ticks=0,
        time_base=1 / rate,
        origin_s=Fraction(0),
        average_rate=rate,
        frames_estimate=len(files),
        is_variable_rate=False,
        picture=picture,
        video_index=0,
        streams=(StreamInfo(0, "video", codec, description=f"{width}x{height}, {first.pix_fmt}"),),
        metadata={name: text for name, text in tags.items() if text is not None},
        files=tuple(files.values()),
        first_number=next(iter(files)),
    )


class SequenceReader:
    """Iterate once over an image sequence, as `FilmReader` over a film; a broken frame leaves a gap and is named."""

    def __init__(
        self,
        path: Path,
        rate: Fraction | None,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        from_s: Fraction | None = None,
    ) -> None:
        self.info = probe_sequence(path, rate)
        self.report = ReadReport()
        start = exact_time(start_s) if start_s else None
        self._start_s, self._end_s = start, None if end_s is None else exact_time(end_s)
        base = self.info.time_base
        self.time_offset_s = Fraction(0) if start is None else start // base * base
        self._from_s = max(start or Fraction(0), from_s or Fraction(0))

    def __enter__(self) -> SequenceReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __iter__(self) -> Iterator[LumaFrame]:
        info, picture = self.info, self.info.picture
        for number, file in enumerate(info.files):
            time_s = number * info.time_base
            if time_s < self._from_s or (self._end_s is not None and time_s >= self._end_s):
                continue
            try:
                frame = read_frame(file, picture.matrix)
            except FilmOpenError as error:
                self.report.undecodable_packets += 1
                self.report.warn(f"frame left out: {error}")
                continue
            self._require_like_the_first(file, frame)
            self.report.frames += 1
            self.report.given += 1
            yield LumaFrame(frame.luma, number, info.time_base, 1, is_corrupt=False)
        if not self.report.frames:
            raise FilmDecodeError(f"{info.path}: no frame of it lies in the cut, or none can be decoded")

    def side_packets(self) -> Iterator[SidePacket]:
        """None: there is nothing beside the pictures."""
        return iter(())

    def _require_like_the_first(self, file: Path, frame: SequenceFrame) -> None:
        picture = self.info.picture
        height, width = frame.luma.shape
        if (width, height) != (picture.width_px, picture.height_px):
            raise FilmDecodeError(
                f"{file}: is {width}x{height}, the frames before {picture.width_px}x{picture.height_px}"
            )
        if frame.bit_depth != picture.bit_depth:
            raise FilmDecodeError(f"{file}: has {frame.bit_depth} bits, the frames before {picture.bit_depth}")
        if frame.is_logarithmic:
            self.report.warn(
                "the frames are logarithmic (Cineon); their lightness is taken as it is, too light and flat"
            )
        for text in frame.warnings:
            self.report.warn(text.replace(file.name, self.info.path.name))
