"""DPX headers (SMPTE ST 268-1): what a scan's says of its film goes on into the coloured frame, and into films."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, Self

from archivecolor.errors import FilmOpenError

_GENERIC, _ALL = 1664, 2048  # bytes: without and with the parts of film and television
_MOST_USER_BYTES: Final = 1 << 20
_UNDEFINED: Final = 0xFFFFFFFF
# Offsets of numbers, 4 bytes each, and of text.
_PICTURE_AT, _FILE_SIZE, _GENERIC_SIZE, _INDUSTRY_SIZE, _USER_SIZE, _ELEMENT_AT = 4, 16, 24, 28, 32, 808
_ASPECT, _TIMECODE = 1628, 1920
_CREATED, _CREATOR, _COPYRIGHT = slice(136, 160), slice(160, 260), slice(460, 660)
_SOURCE_NAME, _SOURCE_CREATED = slice(1432, 1532), slice(1532, 1556)
# Project and copyright; scanner; key code and format; frame identification and slate; interlace and video signal.
_CARRIED_BYTES: Final = ((260, 660), (1556, 1620), (1664, 1712), (1732, 1864), (1928, 1931))
# Pixel aspect; place in the sequence, rate, shutter; time code, user bits; sampling and frame rates. Gamma and the
# levels of black and white are not true of the output.
_CARRIED_NUMBERS: Final = ((1628, 1636), (1712, 1732), (1920, 1928), (1932, 1948))
_INDUSTRY_NUMBERS: Final = ((1712, 1732), (1920, 1928), (1932, 1972))


class DpxHeader:
    """The header of a DPX file, with what its maker put between header and picture; raises `FilmOpenError`."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.order: Literal["big", "little"] = "big" if content[:4] == b"SDPX" else "little"

    @classmethod
    def of(cls, path: Path) -> Self:
        """That of a file."""
        try:
            with path.open("rb") as file:
                header = file.read(_ALL)
                return cls(header + file.read(cls(header)._user_bytes))
        except OSError as error:
            raise FilmOpenError(f"{path}: cannot be read ({error.strerror})") from error

    def number(self, at: int) -> int:
        """Undefined where the header ends before."""
        field = self.content[at : at + 4]
        return int.from_bytes(field, self.order) if len(field) == 4 else _UNDEFINED

    @property
    def length(self) -> int:
        """How far it goes: `_ALL` with the parts of film and television, less without."""
        return min(self.number(_PICTURE_AT), len(self.content), _ALL)

    @property
    def _user_bytes(self) -> int:
        size = self.number(_USER_SIZE)
        return size if size <= min(_MOST_USER_BYTES, self.number(_PICTURE_AT) - _ALL) else 0

    @property
    def user_data(self) -> bytes:
        """What the maker of the file keeps in it, from its identification on."""
        return self.content[_ALL : _ALL + self._user_bytes]

    @property
    def timecode(self) -> str | None:
        """``HH:MM:SS:FF``, ``;`` before the frames where numbers are dropped (ST 12-1); None where there is none."""
        code = self.number(_TIMECODE) if self.length == _ALL else _UNDEFINED
        digits = f"{code & 0x3F7F7F3F:08x}"  # without the flags in the upper digits
        hours, minutes, seconds, frames = (digits[at : at + 2] for at in range(0, 8, 2))
        # Software that knows no time code may write zeros instead of leaving it undefined.
        if code in (0, _UNDEFINED) or not digits.isdecimal() or hours > "23" or max(minutes, seconds) > "59":
            return None
        return f"{hours}:{minutes}:{seconds}{';' if code & 0x40 else ':'}{frames}"

    @property
    def copyright(self) -> str | None:
        """The copyright statement."""
        raw = self.content[_COPYRIGHT].split(b"\0")[0]
        return None if raw[:1] == b"\xff" else raw.decode("utf-8", "replace").strip() or None

    @property
    def sample_aspect_ratio(self) -> Fraction | None:
        """Width by height of a sample."""
        across, down = self.number(_ASPECT), self.number(_ASPECT + 4)
        return Fraction(across, down) if 0 < across < 1 << 16 and 0 < down < 1 << 16 else None


def with_header(encoded: bytes, creator: str, source: Path | None = None, timecode: str | None = None) -> bytes:
    """A DPX file as FFmpeg has encoded it, with a whole header.

    ``source`` is the DPX file that it was made of: what is said there of project, film, scanner, key code, time code
    and rate is said here too, and so is what its maker put into it. ``creator`` is ASCII. Raises `FilmOpenError`.
    """
    order = DpxHeader(encoded[:_GENERIC]).order
    new = bytearray(encoded[:_GENERIC].ljust(_ALL, b"\0"))
    new[_CREATOR] = creator.encode("ascii")[:99].ljust(100, b"\0")
    for begin, end in _INDUSTRY_NUMBERS:
        new[begin:end] = b"\xff" * (end - begin)
    numbers: dict[int, int] = {}
    if source is not None:
        header = DpxHeader.of(source)
        for begin, end in _CARRIED_BYTES:
            if end <= header.length:
                new[begin:end] = header.content[begin:end]
        for begin, end in _CARRIED_NUMBERS:
            if end <= header.length:
                numbers |= {at: header.number(at) for at in range(begin, end, 4)}
        new[_SOURCE_NAME] = source.name.encode("utf-8", "surrogateescape")[:99].ljust(100, b"\0")
        new[_SOURCE_CREATED] = header.content[_CREATED].ljust(24, b"\0")
        new += header.user_data
    if timecode is not None and (code := _bcd(timecode)) is not None:
        numbers[_TIMECODE] = code
    numbers |= {_PICTURE_AT: len(new), _ELEMENT_AT: len(new), _FILE_SIZE: len(encoded) - _GENERIC + len(new)}
    numbers |= {_GENERIC_SIZE: _GENERIC, _INDUSTRY_SIZE: _ALL - _GENERIC, _USER_SIZE: len(new) - _ALL}
    for at, number in numbers.items():
        new[at : at + 4] = number.to_bytes(4, order)
    return bytes(new) + encoded[_GENERIC:]


def _bcd(timecode: str) -> int | None:
    """Time code as a DPX header has it; None where it counts more than 40 frames a second."""
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)([:;.])([0-3]\d)", timecode)
    if match is None:
        return None
    drops = 0 if match[4] == ":" else 0x40
    return int(match[1] + match[2] + match[3] + match[5], 16) | drops
