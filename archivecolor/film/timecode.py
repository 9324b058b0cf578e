"""SMPTE time code (ST 12-1) as text: a number of frames later, and at twice the rate."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_TIMECODE: Final = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})([:;.])(\d{2,3})")


def later_timecode(timecode: str, frames: int, rate: Fraction) -> str | None:
    """``timecode`` advanced by ``frames`` at ``rate`` frames a second; None where it is no time code.

    With ``;`` or ``.`` before the frames it drops frame numbers: at 30000/1001 the first two of each minute that is no
    multiple of ten, at 60000/1001 the first four. It wraps after 24 hours.
    """
    match = _TIMECODE.fullmatch(timecode.strip())
    if match is None:
        return None
    hours, minutes, seconds, number = (int(match[group]) for group in (1, 2, 3, 5))
    nominal = round(rate)
    drops = match[4] != ":" and nominal % 30 == 0
    dropped_a_minute = nominal // 15 if drops else 0
    minute = 60 * nominal
    whole_minutes = hours * 60 + minutes
    count = whole_minutes * minute + seconds * nominal + number
    count -= dropped_a_minute * (whole_minutes - whole_minutes // 10)
    ten_minutes = 10 * minute - 9 * dropped_a_minute
    count = (count + frames) % (144 * ten_minutes)
    tens, rest = divmod(count, ten_minutes)
    after_first = max(0, rest - dropped_a_minute) // (minute - dropped_a_minute) if rest >= minute else 0
    count += dropped_a_minute * (9 * tens + after_first)
    seconds, number = divmod(count, nominal)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{match[4]}{number:0{len(match[5])}}"


def doubled_timecode(timecode: str) -> str | None:
    """``timecode`` of a film of which each frame becomes two; None where it is no time code."""
    match = _TIMECODE.fullmatch(timecode.strip())
    if match is None:
        return None
    return f"{match[1]:0>2}:{match[2]}:{match[3]}{match[4]}{int(match[5]) * 2:0{len(match[5])}}"
