"""What tracks say of themselves, their languages and their roles, and what of it a container can say."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable
from typing import Any, Final

import av
import numpy as np
from av.stream import Disposition, Stream

# FFmpeg's names of the languages that QuickTime numbers: some bibliographic, some terminological ISO 639-2 codes.
_QUICKTIME_LANGUAGES: Final = {
    "bod": "tib", "cym": "wel", "cze": "ces", "deu": "ger", "ell": "gre", "eus": "baq", "fre": "fra", "hye": "arm",
    "isl": "ice", "kat": "geo", "mkd": "mac", "msa": "may", "mya": "bur", "nld": "dut", "rum": "ron", "slo": "slk",
    "sqi": "alb", "swe": "sve", "zho": "chi",
}  # fmt: skip
_QUICKTIME_FAMILY: Final = ("mp4", "mov")
_UNNAMED: Final = ("und", "mul", "zxx", "")
_ROLES: Final = (
    *("forced", "hearing_impaired", "visual_impaired", "captions", "descriptions"),
    *("original", "dub", "comment", "lyrics", "karaoke", "clean_effects"),
)
"""FFmpeg's dispositions that say what a track is for."""
_SAME_AS: Final = {"captions": "hearing_impaired", "descriptions": "visual_impaired"}
"""Roles that MP4 has one word for and FFmpeg two."""


def name_in(format_name: str, language: str) -> str:
    """What ``language`` is called in a container of ``format_name``."""
    return _QUICKTIME_LANGUAGES.get(language, language) if format_name == "mov" else language


def is_lost(format_name: str, language: str | None) -> bool:
    """Whether a track of a container of ``format_name`` cannot say that it is in ``language``."""
    if language is None or language in _UNNAMED or format_name not in _QUICKTIME_FAMILY:
        return False
    name = name_in(format_name, language)
    return _tried_out(format_name, name, ())[0] != name


def roles_of(stream: Stream) -> tuple[str, ...]:
    """What the track is for: some of ``forced``, ``hearing_impaired``, ``comment`` and the like."""
    roles = [name for name in _ROLES if stream.disposition & Disposition[name]]
    return tuple(name for name in roles if _SAME_AS.get(name) not in roles)


def lost_roles(format_name: str, roles: Iterable[str]) -> list[str]:
    """Those of a track's ``roles`` that a container of ``format_name`` cannot say."""
    return [role for role in roles if not {role, _SAME_AS.get(role)} & {*_tried_out(format_name, None, (role,))[1]}]


@functools.cache
def _tried_out(format_name: str, language: str | None, roles: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Language and roles of a track that had these, on a moment of silence in memory."""
    memory = io.BytesIO()
    with av.open(memory, "w", format=format_name, metadata_errors="surrogateescape") as output:
        track: Any = output.add_stream("libopus" if format_name == "webm" else "pcm_s16le", rate=48000)
        if language is not None:
            track.metadata["language"] = language
        for role in roles:
            track.disposition |= Disposition[role]
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
        silence.sample_rate = 48000
        output.mux([*track.encode(silence), *track.encode(None)])
    memory.seek(0)
    with av.open(memory, metadata_errors="surrogateescape") as written:
        [stream] = written.streams
        return stream.metadata.get("language"), roles_of(stream)
