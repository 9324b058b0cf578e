"""A film that was just joined, looked at once more before it gets its name."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Final

import av.error

from archivecolor.errors import FilmEncodeError, FilmOpenError
from archivecolor.film.opening import in_words, open_film
from archivecolor.film.writer import EMPTY_BYTES, FilmWriter

_TOLERANCE_S: Final = Fraction(1, 500)


def check_film(writer: FilmWriter, length_s: Fraction, shown_as: Path) -> None:
    """Read the packets of a finished film again, and hold them against what was written.

    The picture is to have all its frames, over ``length_s`` seconds from the first to the last, and every other stream
    all its packets, or bytes where the container cuts packets of its own. Nothing is decoded. Raises `FilmEncodeError`
    naming ``shown_as``.
    """
    packets: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    times: list[Fraction] = []
    picture, *_ = (entry["output_index"] for entry in writer.stream_map() if entry["action"] == "coloured")
    try:
        with open_film(writer.path) as film:
            kinds = dict(enumerate(stream.type for stream in film.streams))
            for packet in film.demux():
                if packet.stream_index == picture:
                    if packet.size and packet.pts is not None:
                        times.append(packet.pts * packet.time_base)
                elif packet.size > EMPTY_BYTES:
                    packets[packet.stream_index] += 1
                    sizes[packet.stream_index] += packet.size
    except (FilmOpenError, av.error.FFmpegError, OSError) as error:
        raise FilmEncodeError(f"{shown_as}: cannot be read again ({in_words(error)}); run again") from error
    wrong = []
    if len(times) != writer.frames:
        wrong.append(f"{len(times)} frames instead of {writer.frames}")
    elif times and abs(max(times) - min(times) - length_s) > _TOLERANCE_S:
        wrong.append(f"{float(max(times) - min(times)):.3f} s instead of {float(length_s):.3f} s")
    for entry in writer.stream_map():
        index = entry["output_index"]
        if index is None or index == picture:
            continue
        if kinds.get(index) != entry["kind"]:
            wrong.append(f"no {entry['kind']} stream {index}")
        elif packets[index] != entry["packets"] and sizes[index] != entry["bytes"]:
            wrong.append(f"{packets[index]} packets of stream {index} instead of {entry['packets']}")
    if wrong:
        raise FilmEncodeError(f"{shown_as}: was not written whole ({', '.join(wrong)}); run again to join it anew")
