"""The languages of tracks, and which of them a container can name."""

from __future__ import annotations

import functools
import io
from typing import Any, Final

import av
import numpy as np

# FFmpeg's names of the languages that QuickTime numbers: some bibliographic, some terminological ISO 639-2 codes.
_QUICKTIME_LANGUAGES: Final = {
    "bod": "tib", "cym": "wel", "cze": "ces", "deu": "ger", "ell": "gre", "eus": "baq", "fre": "fra", "hye": "arm",
    "isl": "ice", "kat": "geo", "mkd": "mac", "msa": "may", "mya": "bur", "nld": "dut", "rum": "ron", "slo": "slk",
    "sqi": "alb", "swe": "sve", "zho": "chi",
}  # fmt: skip
_QUICKTIME_FAMILY: Final = ("mp4", "mov")
_UNNAMED: Final = ("und", "mul", "zxx", "")


def name_in(format_name: str, language: str) -> str:
    """What ``language`` is called in a container of ``format_name``."""
    return _QUICKTIME_LANGUAGES.get(language, language) if format_name == "mov" else language


def is_lost(format_name: str, language: str | None) -> bool:
    """Whether a track of a container of ``format_name`` cannot say that it is in ``language``."""
    if language is None or language in _UNNAMED or format_name not in _QUICKTIME_FAMILY:
        return False
    return not _is_kept(format_name, name_in(format_name, language))


@functools.cache
def _is_kept(format_name: str, language: str) -> bool:
    """Tried out on a moment of silence in memory."""
    memory = io.BytesIO()
    with av.open(memory, "w", format=format_name, metadata_errors="surrogateescape") as output:
        track: Any = output.add_stream("pcm_s16le", rate=8000)
        track.metadata["language"] = language
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        output.mux(track.encode(silence))
    memory.seek(0)
    with av.open(memory, metadata_errors="surrogateescape") as written:
        return written.streams[0].metadata.get("language") == language
