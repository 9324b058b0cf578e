"""Carrying the source's other streams into an output: which ones a container can hold, as they are or converted."""

from __future__ import annotations

import io
import mimetypes
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
import av.error
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import AttachmentStream, Stream

from archivecolor.errors import FilmEncodeError
from archivecolor.film.channels import only_counts, usual_layout
from archivecolor.film.info import FilmInfo
from archivecolor.film.opening import codec_name, in_words, readable
from archivecolor.film.sound import (
    SoundConverter,
    SoundTarget,
    configure_sound,
    is_better_converted,
    sound_target,
)
from archivecolor.film.subtitles import SubtitleConverter, subtitle_target
from archivecolor.film.track_marks import is_lost, lost_roles, name_in

# Containers of one family hold each other's private data tracks.
_FAMILIES: Final = ({"mov", "mp4", "ipod", "3gp"}, {"matroska", "webm"}, {"mpegts"}, {"mxf"})
_STALE_TAGS: Final = ("encoder", "vendor_id", "duration", "bps", "number_of_", "_statistics_")
_CONTAINER_OWN_TAGS: Final = {"major_brand", "minor_version", "compatible_brands", "encoder"}
_SOUND_HOLDERS: Final = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov"}
_NOT_HELD_WHOLE: Final = {("mp4", "dvd_subtitle"), ("mov", "speex"), ("mp4", "speex")}
_CHAPTER_CODECS: Final = {"bin_data", "unknown", "text"}


@dataclass(frozen=True)
class LeftOut:
    """A stream of the source that the output cannot hold, and why, with the remedy."""

    index: int
    kind: str
    codec: str
    reason: str


@dataclass(frozen=True)
class Converted:
    """A stream of the source that the output holds in another form: sound encoded again, subtitles as other text."""

    index: int
    kind: str
    codec: str
    target: SoundTarget | str

    @property
    def in_words(self) -> str:
        """What it becomes."""
        return self.target if isinstance(self.target, str) else self.target.in_words


@dataclass(frozen=True)
class StreamPlan:
    """What becomes of each stream beside the picture; ``kept`` are the indices of those copied packet for packet."""

    kept: tuple[int, ...]
    converted: tuple[Converted, ...]
    left_out: tuple[LeftOut, ...]


def add_side_stream(output: OutputContainer, source: InputContainer, stream: Stream) -> Stream | None:
    """Add a stream to ``output`` that will take ``stream``'s packets as they are.

    Attachments and, in Matroska, cover art are written at once and give None. Raises ValueError or FFmpegError when
    the container does not hold it.
    """
    in_matroska = output.format.name == "matroska"
    if isinstance(stream, AttachmentStream):
        if not in_matroska:
            raise ValueError("only Matroska holds attachments")
        name = stream.metadata.get("filename", f"attachment{stream.index}")
        kind = stream.metadata.get("mimetype") or mimetypes.guess_type(name)[0] or "application/octet-stream"
        output.add_attachment(readable(name), kind, stream.data)
        return None
    is_cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
    if is_cover and in_matroska:
        codec = codec_name(stream)
        extension, kind = {"png": ("png", "image/png"), "mjpeg": ("jpg", "image/jpeg")}[codec]
        picture = next(packet for packet in source.demux(stream) if packet.size)
        output.add_attachment(f"cover.{extension}", kind, bytes(picture))
        return None
    if is_cover and output.format.name == "mov":
        raise ValueError("QuickTime's muxer drops cover art")
    if (output.format.name, codec_name(stream)) in _NOT_HELD_WHOLE:
        raise ValueError("the muxer takes the stream, but not all its packets")
    added: Stream = output.add_stream_from_template(stream, opaque=True)
    if isinstance(stream, AudioStream) and output.format.name in ("mp4", "mov"):
        _name_layout(stream, added)
    _carry_tags(added, output, stream, re_encoded=False)
    return added


def _name_layout(stream: AudioStream, added: Any) -> None:
    """Give a track that only counts its channels, as PCM in Matroska does, the layout MP4 has to write for them."""
    known: AudioCodecContext | None = stream.codec_context  # None without a decoder, whatever PyAV's types say
    if known is not None and only_counts(known.layout) and (name := usual_layout(known.layout)) != known.layout.name:
        added.codec_context.layout = name


def add_converter(
    output: OutputContainer, stream: Stream, target: SoundTarget | str, offset_s: Fraction
) -> tuple[Stream, SoundConverter | SubtitleConverter]:
    """Add a stream to ``output`` for what ``stream`` becomes, and what its packets have to go through."""
    converter: SoundConverter | SubtitleConverter
    if isinstance(target, str):
        converter = SubtitleConverter(stream, output, target, offset_s)
        added = converter.stream
    else:
        sound: Any = output.add_stream(target.encoder, rate=target.rate_hz)
        assert isinstance(sound, AudioStream) and isinstance(sound.codec_context, AudioCodecContext)
        assert isinstance(stream, AudioStream)
        configure_sound(sound.codec_context, target)
        sound.time_base = Fraction(1, target.rate_hz)
        converter = SoundConverter(stream, sound, target, offset_s)
        added = sound
    _carry_tags(added, output, stream, re_encoded=True)
    return added, converter


def _carry_tags(added: Stream, output: OutputContainer, stream: Stream, *, re_encoded: bool) -> None:
    added.metadata.update(carried_tags(stream, output.format.name, re_encoded=re_encoded))
    added.disposition = stream.disposition
    if (language := stream.metadata.get("language")) is not None:
        added.metadata["language"] = name_in(output.format.name, language)


def carried_tags(stream: Stream, format_name: str, *, re_encoded: bool) -> dict[str, str]:
    """A stream's tags that stay true in the output; a re-encoded stream loses those that describe its old coding.

    Its title is its name in MP4 and QuickTime, which many players show as that of the track's handler.
    """
    stale = _STALE_TAGS if re_encoded else _STALE_TAGS[:2]
    tags = {key: value for key, value in stream.metadata.items() if not key.lower().startswith(stale)}
    if "title" not in tags and "name" in tags:
        tags["title"] = tags["name"]
    if "title" in tags and format_name in ("mp4", "mov"):
        tags["handler_name"] = tags["title"]
    return tags


def carried_metadata(source: InputContainer) -> dict[str, str]:
    """The film's own tags, without those that every muxer writes for itself; Ogg has them at its picture."""
    tags = dict(source.metadata)
    if source.format.name == "ogg":
        at_picture = next((video.metadata for video in source.streams.video), {})
        tags = {**{key: value for key, value in at_picture.items() if key.lower() != "language"}, **tags}
    return {key: value for key, value in tags.items() if key.lower() not in _CONTAINER_OWN_TAGS}


def holds(format_name: str, source: InputContainer, stream: Stream) -> str | None:
    """None when a container of ``format_name`` takes this stream (tried out in memory), else why not."""
    output = av.open(io.BytesIO(), "w", format=format_name, metadata_errors="surrogateescape")
    try:
        added = add_side_stream(output, source, stream)
        if added is not None:
            output.start_encoding()
    except (ValueError, KeyError, StopIteration, av.error.FFmpegError) as error:
        return in_words(error)
    finally:
        _abandon(output)
    return None


def _abandon(output: OutputContainer) -> None:
    try:
        output.close()
    except (ValueError, av.error.FFmpegError):
        return  # a trial without packets need not end well


def plan_streams(info: FilmInfo, source: InputContainer, format_name: str) -> StreamPlan:
    """Which of the source's other streams are copied, which converted, and which are left out and why.

    Raises `FilmEncodeError` for sound that the container cannot hold and that cannot be decoded either: a film never
    loses its sound silently. What is of no known codec nothing could hold: it is left out.
    """
    kept: list[int] = []
    converted: list[Converted] = []
    left_out: list[LeftOut] = []
    for stream in source.streams:
        if stream.index == info.video_index:
            continue
        described = info.streams[stream.index] if stream.index < len(info.streams) else None
        kind = described.kind if described else stream.type
        codec = codec_name(stream)
        if kind == "data" and (reason := _why_not_data(info, stream, codec, format_name)) is not None:
            left_out.append(LeftOut(stream.index, kind, codec, reason))
        elif not is_better_converted(codec, format_name) and holds(format_name, source, stream) is None:
            kept.append(stream.index)
        elif (target := _target(stream, kind, format_name)) is not None:
            converted.append(Converted(stream.index, kind, codec, target))
        elif kind == "audio" and codec == "unknown":
            left_out.append(LeftOut(stream.index, kind, codec, "its codec is not known; is the file damaged?"))
        elif kind == "audio":
            others = [ext for ext, name in _SOUND_HOLDERS.items() if holds(name, source, stream) is None]
            remedy = f"; write {' or '.join(others)} instead" if others else ""
            raise FilmEncodeError(f"{info.path}: its {codec} sound does not fit into {format_name}{remedy}")
        else:
            remedy = "" if format_name == "matroska" else _remedy(source, stream)
            left_out.append(LeftOut(stream.index, kind, codec, f"{format_name} cannot hold it{remedy}"))
    return StreamPlan(tuple(kept), tuple(converted), tuple(left_out))


def lost_marks(info: FilmInfo, streams: StreamPlan, format_name: str) -> list[str]:
    """Sentences for tracks that are there but no longer say which language they are in, or what they are for."""
    there = {*streams.kept, *(converted.index for converted in streams.converted)}
    tracks = [stream for stream in info.streams if stream.index in there]
    languages = [
        f"{format_name} has no name for the language {track.language!r} of track {track.index}; .mkv keeps it"
        for track in tracks
        if is_lost(format_name, track.language)
    ]
    roles = [
        f"{format_name} cannot mark track {track.index} as {role.replace('_', ' ')}"
        + ("" if lost_roles("matroska", [role]) else "; .mkv can")
        for track in tracks
        for role in lost_roles(format_name, track.roles)
    ]
    return languages + roles


def _target(stream: Stream, kind: str, format_name: str) -> SoundTarget | str | None:
    if kind == "audio":
        return sound_target(stream, format_name)
    return subtitle_target(stream, format_name) if kind == "subtitle" else None


def _remedy(source: InputContainer, stream: Stream) -> str:
    return "; .mkv keeps it" if holds("matroska", source, stream) is None else ""


def _why_not_data(info: FilmInfo, stream: Stream, codec: str, format_name: str) -> str | None:
    if any(key.lower() == "timecode" for key in stream.metadata):
        return "time code: carried as the picture's time code tag instead"
    if info.chapters and codec in _CHAPTER_CODECS and info.container.startswith("mov"):
        return "chapter titles: carried as chapters instead"
    source_formats = set(info.container.split(","))
    if not any(format_name in family and source_formats & family for family in _FAMILIES):
        return f"private data of another container than {format_name}"
    return None


def copy_chapters(source: InputContainer, output: OutputContainer, offset_s: Any, end_s: Fraction | None) -> bool:
    """The source's chapters, moved by the output's time offset and cut at ``end_s``; whether there are any."""
    chapters: list[dict[str, Any]] = []
    in_a_track = output.format.name in ("mp4", "mov")
    for chapter in source.chapters():
        base = chapter["time_base"]
        if not base:
            continue
        shift = round(offset_s / base)
        last = chapter["end"] if end_s is None else min(chapter["end"], round(end_s / base))
        start, end = max(0, chapter["start"] - shift), last - shift
        if end <= 0 or (end_s is not None and start >= end):
            continue
        if in_a_track and not chapters and start:  # the first one is shown from zero on
            chapters.append({**chapter, "id": 0, "start": 0, "end": start, "metadata": {"title": ""}})
        titled = {"title": "", **chapter["metadata"]} if in_a_track else chapter["metadata"]
        chapters.append({**chapter, "start": start, "end": max(start, end), "metadata": titled})
    if chapters:
        output.set_chapters(chapters)  # type: ignore[arg-type]
    return bool(chapters)
