"""What is known of a film before its frames are decoded: its picture, time, streams and tags."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

from archivecolor.errors import FilmOpenError
from archivecolor.film.pixels import PixelFormat, pixel_format

UNTAGGED: Final = 2
SEQUENCE: Final = "image sequence"  # `FilmInfo.container` of numbered files
# ITU-T H.273 codes, by FFmpeg's names.
MATRIX_NAMES: Final = {
    0: "gbr",
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
    14: "ictcp",
}
PRIMARIES_NAMES: Final = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
}
TRANSFER_NAMES: Final = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    11: "iec61966-2-4",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084 (PQ)",
    18: "arib-std-b67 (HLG)",
}
MATRIX_CODES: Final = {name: code for code, name in MATRIX_NAMES.items()}
_PQ, _HLG = 16, 18

StreamKind = Literal["video", "audio", "subtitle", "data", "attachment"]


@dataclass(frozen=True)
class StreamInfo:
    """One stream of the container, as worth showing; text is always printable. ``roles`` are those of `track_marks`."""

    index: int
    kind: StreamKind
    codec: str
    language: str | None = None
    title: str | None = None
    description: str = ""
    is_attached_picture: bool = False
    timecode: str | None = None
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chapter:
    """A named part of the film, seconds on the source's clock."""

    start_s: float
    end_s: float
    title: str


@dataclass(frozen=True)
class Picture:
    """The film's picture as decoded.

    ``matrix`` is always a key of `archivecolor.color.MATRICES`: the tagged one, or for untagged pictures the usual
    rule (BT.601 up to 1024 x 576, BT.709 above). ``tagged_*`` are the H.273 codes in the file, 2 where it says
    nothing. ``display_matrix`` is FFmpeg's nine integers, None when upright; ``rotation`` its angle in degrees,
    counter-clockwise. ``interlaced`` is what the first frame says, or the container where the codec marks no frames
    (``marked_by_container``); ``field_order`` is ``tt`` or ``bb`` then, by the field that is shown first.
    """

    width_px: int
    height_px: int
    pix_fmt: str
    bit_depth: int
    full_range: bool
    matrix: str
    tagged_matrix: int = UNTAGGED
    tagged_primaries: int = UNTAGGED
    tagged_transfer: int = UNTAGGED
    tagged_range: int = 0
    sample_aspect_ratio: Fraction | None = None
    display_matrix: tuple[int, ...] | None = None
    rotation: int = 0
    interlaced: bool = False
    field_order: str = "unknown"
    marked_by_container: bool = False

    @property
    def top_field_first(self) -> bool | None:
        """Which field of an interlaced picture is shown first; None for a progressive one."""
        return self.field_order == "tt" if self.interlaced else None

    @property
    def format(self) -> PixelFormat:
        """Layout, depth and subsampling of the decoded pixel format."""
        return pixel_format(self.pix_fmt)

    @property
    def hdr(self) -> bool:
        """Whether the transfer is PQ or HLG (ITU-R BT.2100)."""
        return self.tagged_transfer in (_PQ, _HLG)


@dataclass(frozen=True)
class FilmInfo:
    """Everything known about a film without decoding more than its first frames.

    Times are on the source's clock, in ticks of ``time_base`` (seconds a tick) or seconds (``_s``).
    ``origin_s`` is what an output subtracts from every stream: where a transport stream's clock starts, or a
    negative first picture time; zero for everything else, whose own times are kept. ``times_in_coding_order``
    is a fault of some MXF and AVI files: packets carry times in the order they were coded, not shown. ``files`` are
    the frames of an image sequence, ``first_number`` the first one's number. ``is_doubled``: fields have become frames.
    """

    path: Path
    container: str
    container_name: str
    duration_s: float | None
    size_bytes: int
    first_pts_ticks: int
    time_base: Fraction
    origin_s: Fraction
    average_rate: Fraction | None
    frames_estimate: int | None
    is_variable_rate: bool
    picture: Picture
    video_index: int
    streams: tuple[StreamInfo, ...]
    chapters: tuple[Chapter, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    times_in_coding_order: bool = False
    files: tuple[Path, ...] = ()
    first_number: int = 0
    is_doubled: bool = False

    @property
    def hdr(self) -> bool:
        """Whether the picture is PQ or HLG."""
        return self.picture.hdr

    @property
    def codec(self) -> str:
        """Codec of the picture."""
        return self.streams[self.video_index].codec

    def require_sdr(self) -> None:
        """Raise `FilmOpenError` for an HDR picture: archive film is SDR, and L* of PQ or HLG code would be wrong."""
        if self.hdr:
            name = "PQ" if self.picture.tagged_transfer == _PQ else "HLG"
            raise FilmOpenError(f"{self.path}: HDR picture ({name}); convert it to SDR first")
