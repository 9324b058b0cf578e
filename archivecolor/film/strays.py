"""Packets of transport and program streams whose times are wrong, as a flipped bit on the way makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from av.packet import Packet
from av.stream import Stream

from archivecolor.film.frames import ReadReport

_JUMP_S: Final = 1
_MOST_HELD: Final = 32  # as many sounds as a PES packet may hold, which has one time for all


@dataclass
class _Track:
    last_s: Fraction | None = None
    held: list[tuple[Fraction, Packet[Stream]]] = field(default_factory=list)


def without_strays(packets: Iterable[Packet[Stream]], report: ReadReport, name: str) -> Iterator[Packet[Stream]]:
    """``packets``, and between their neighbours in time those of picture and sound that leap away for a moment.

    A leap from which the stream does not come back is none: a gap, or a clock that starts anew.
    """
    tracks: dict[int, _Track] = {}
    for packet in packets:
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or packet.stream.type not in ("video", "audio"):
            yield packet
            continue
        track = tracks.setdefault(packet.stream_index, _Track())
        now_s = stamp * packet.time_base
        leaps = track.last_s is not None and abs(now_s - track.last_s) > _JUMP_S
        goes_on = bool(track.held) and abs(now_s - track.held[-1][0]) <= _JUMP_S
        if leaps or goes_on:
            track.held.append((now_s, packet))
            if len(track.held) > _MOST_HELD or not leaps:
                yield from _released(track)
            continue
        if track.held:
            report.warn(f"{name}: some packets carry a wrong time; placed between the ones around them")
            yield from _between(track, now_s)
        track.last_s = now_s
        yield packet
    for track in tracks.values():
        yield from _released(track)


def _between(track: _Track, now_s: Fraction) -> Iterator[Packet[Stream]]:
    """The packets that were held, spread evenly up to ``now_s``."""
    held, track.held = track.held, []
    assert track.last_s is not None
    step_s = max(Fraction(0), now_s - track.last_s) / (len(held) + 1)
    for number, (wrong_s, packet) in enumerate(held, 1):
        off = round((wrong_s - (track.last_s + number * step_s)) / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - off
        packet.dts = None if packet.dts is None else packet.dts - off
        yield packet


def _released(track: _Track) -> Iterator[Packet[Stream]]:
    """The packets that were held, as they are."""
    held, track.held = track.held, []
    for track.last_s, packet in held:
        yield packet
