"""Opening a film's container: errors in one line, and which of its streams is the film."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from archivecolor.errors import FilmOpenError, missing
from archivecolor.film.channels import put_in_order

# Demuxers that turn text or scripts into pictures, or follow lists of other files (and wait for a live one to grow):
# never what an archive means by a film.
_NOT_FILMS: Final = {"tty", "lavfi", "concat", "bin", "xbin", "adf", "idf", "hls", "dash", "imf"}
_FILMS: Final = ",".join(sorted(av.formats_available - _NOT_FILMS))
_RAW_PICTURES: Final = {".yuv", ".raw", ".rgb", ".nv12", ".uyvy", ".yuyv", ".gray", ".y"}
TS_DISCONT: Final = 0x0200  # AVFMTTS_DISCONT: a demuxer whose clock may start anywhere
STILL_DISPOSITIONS: Final = (
    av.stream.Disposition.attached_pic | av.stream.Disposition.still_image | av.stream.Disposition.timed_thumbnails
)


def readable(text: str) -> str:
    """Text from a file's metadata, printable: bytes that are not UTF-8 are read as Windows-1252."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def in_words(error: Exception) -> str:
    """FFmpeg's own words for an error, without its numbers."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def open_film(path: Path) -> InputContainer:
    """Open a container for reading; raises `FilmOpenError` in one line that names the file and the remedy.

    Metadata that is not UTF-8 is kept as surrogates. Only local files are followed, never the network.
    """
    if not path.exists():
        raise FilmOpenError(missing(path))
    if path.is_dir():
        raise FilmOpenError(f"{path}: is a folder, not a film")
    if not path.is_file():
        raise FilmOpenError(f"{path}: is a pipe or a device; a film is read more than once, so copy it to a file first")
    try:
        if path.stat().st_size == 0:
            raise FilmOpenError(f"{path}: the file is empty (0 bytes); copy it again from its source")
        container = av.open(
            f"file:{path}",
            metadata_errors="surrogateescape",
            options={"protocol_whitelist": "file", "format_whitelist": _FILMS},
        )
    except av.error.PermissionError as error:
        raise FilmOpenError(f"{path}: no permission to read it") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        with path.open("rb") as stream:
            head = stream.read(4096)
        if b"ftyp" in head[:64] and b"moov" not in head:
            remedy = "its index (moov) is missing, so it was cut short or never finished; copy it again"
        elif path.suffix.lower() in _RAW_PICTURES:
            remedy = "raw pictures do not say their size or rate; wrap them first (ffmpeg -f rawvideo -video_size ...)"
        elif isinstance(error, av.error.ArgumentError) and b"\0" not in head:
            remedy = "a text, or a list of other files, not a film itself"
        else:
            remedy = f"not a film that can be read ({in_words(error)}); is it complete, and really a film?"
        raise FilmOpenError(f"{path}: {remedy}") from error
    for video in container.streams.video:
        if _has_decoder(video):
            video.codec_context.flags |= Flags.unaligned  # else crops of a few columns on the left are not made
    for sound in container.streams.audio:
        if _has_decoder(sound):
            put_in_order(sound.codec_context)
    return container


def main_video(container: InputContainer, path: Path) -> VideoStream:
    """The film's picture: the first stream that the container calls default, never cover art.

    A transport stream may hold several programmes; there it is the one that FFmpeg finds best.
    """
    films = [s for s in container.streams.video if not s.disposition & STILL_DISPOSITIONS]
    if not films:
        covers = " beside cover art" if container.streams.video else ""
        if container.streams.audio:
            raise FilmOpenError(f"{path}: holds sound only{covers}, no moving picture")
        raise FilmOpenError(f"{path}: holds no moving picture")
    chosen = next((s for s in films if s.disposition & av.stream.Disposition.default), films[0])
    if container.format.flags & TS_DISCONT:  # several programmes: the one FFmpeg would show
        best = container.streams.best("video")
        chosen = next((s for s in films if best is not None and s.index == best.index), chosen)
    if not _has_decoder(chosen):
        raise FilmOpenError(f"{path}: its picture is in a codec that cannot be decoded ({codec_name(chosen)})")
    return chosen


def _has_decoder(stream: Stream) -> bool:
    context: object = stream.codec_context  # None for codecs that FFmpeg cannot decode, whatever PyAV's types say
    return context is not None


def codec_name(stream: Stream) -> str:
    """Canonical codec name (``h264``, ``mp3``), or what the container calls it."""
    if _has_decoder(stream):
        return stream.codec_context.codec.canonical_name
    return getattr(stream, "name", None) or "unknown"
