"""Layouts of sound channels, by their names."""

from __future__ import annotations

from typing import Any, Final

from av.audio.layout import AudioLayout

_LAYOUTS: Final = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1"}  # for tracks that only count channels
# FFmpeg's own order of the channels.
_ORDER: Final = (
    "FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR",
    "DL", "DR", "WL", "WR", "SDL", "SDR", "LFE2", "TSL", "TSR", "BFC", "BFL", "BFR",
)  # fmt: skip


def only_counts(layout: AudioLayout) -> bool:
    """Whether a layout says how many channels there are, and not which."""
    return layout.name == f"{layout.nb_channels} channels"


def usual_layout(layout: AudioLayout) -> str:
    """The name of a layout; where that is none of the known ones, of the layout that so many channels usually are."""
    return _LAYOUTS.get(layout.nb_channels, layout.name) if "channels" in layout.name else layout.name


def put_in_order(context: Any) -> None:
    """Have a decoder that is not open yet call its channels by the usual layout where it lists them out of order.

    PyAV's copies of a layout with a list of its own share that list and free it each: the process dies of it.
    """
    layout: AudioLayout = context.layout
    _, _, listed = layout.name.partition(" channels (")
    names = listed.rstrip(")").split("+")
    places = [_ORDER.index(name) if name in _ORDER else -1 for name in names]
    if listed and (places != sorted(places) or -1 in places):
        context.layout = _LAYOUTS.get(layout.nb_channels, f"{layout.nb_channels} channels")
