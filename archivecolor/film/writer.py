"""Writing a film: encoded planes at the source's own times, beside the copied packets of every other stream."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from archivecolor.errors import FilmEncodeError
from archivecolor.film.encoder import PictureEncoder
from archivecolor.film.frames import SidePacket
from archivecolor.film.info import FilmInfo
from archivecolor.film.matroska import LayoutError, display_size, set_display_size
from archivecolor.film.opening import in_words, open_film
from archivecolor.film.pcm import PcmClock
from archivecolor.film.preroll import Preroll
from archivecolor.film.profiles import OutputPlan, configure
from archivecolor.film.sample_clock import SampleClock
from archivecolor.film.segments import PictureOrder, SegmentFile
from archivecolor.film.sound import SoundConverter
from archivecolor.film.streams import add_converter, add_side_stream, carried_metadata, carried_tags, copy_chapters
from archivecolor.film.subtitles import SubtitleConverter
from archivecolor.film.timecode import doubled_timecode, later_timecode

log = logging.getLogger(__name__)

EMPTY_BYTES: Final = 2  # of packets that hold nothing: FLAC's last one, and mov_text between two subtitles
_TS_NONSTRICT: Final = 0x20000  # AVFMT_TS_NONSTRICT: packets of a stream may share a tick, as short ones do in Matroska
# Tags that each container has a place for; any other needs the general (mdta) form of their metadata.
_QUICKTIME_TAGS: Final = {
    "title", "artist", "genre", "date", "comment", "album", "copyright", "creation_time", "timecode", "encoder",
}  # fmt: skip
_MOST_DENOMINATOR: Final = (1 << 31) - 1  # of a time base, in FFmpeg
_MP4_TAGS: Final = _QUICKTIME_TAGS | {
    "album_artist", "composer", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network",
    "keywords", "location",
}  # fmt: skip


class FilmWriter:
    """Write a film to exactly ``path`` (its container comes from ``plan``, not from the name).

    ``offset_s`` is subtracted from every time of every stream and of the chapters, which end at ``end_s`` on the
    source's clock where a cut does. ``extra_metadata`` joins the source's tags. ``shown_as`` is the name that errors
    give, where ``path`` is temporary. As a context manager it finishes the file; when the block raises, nothing more is
    encoded and the unfinished file is closed for the caller to remove.

    Frame times are exact in MP4 and QuickTime, which take the source's time base; Matroska counts milliseconds.
    Raises `FilmEncodeError` for anything that keeps the file from being written: full disk, a refusing encoder.
    """

    def __init__(
        self,
        path: Path,
        info: FilmInfo,
        plan: OutputPlan,
        *,
        offset_s: Fraction = Fraction(0),
        end_s: Fraction | None = None,
        extra_metadata: dict[str, str] | None = None,
        shown_as: Path | None = None,
    ) -> None:
        self.path, self.info, self.plan = Path(path), info, plan
        self._shown_as = shown_as or self.path
        self.offset_s, self._end_s = Fraction(offset_s), end_s
        self.frames = 0
        self.warnings: list[str] = []
        self.packets: Counter[int] = Counter()  # by stream index of the output, as is the next
        self.bytes: Counter[int] = Counter()
        self._last_dts: dict[int, int] = {}
        self._moved_s: defaultdict[int, Fraction] = defaultdict(Fraction)
        self._ends: dict[int, int] = {}
        self._side: dict[int, Stream] = {}
        self._converters: dict[int, SoundConverter | SubtitleConverter] = {}
        self._sample_clocks: dict[int, SampleClock] = {}
        self._fitted: dict[int, PcmClock | Preroll] = {}
        self._segment: SegmentFile | None = None
        self._source: InputContainer | None = None  # stays open while its decoders are needed for conversions
        self._closed = self._has_chapters = False
        try:
            self._output = self._open(extra_metadata or {})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure(error) from error
        self._encoder = PictureEncoder(self._video.codec_context, info, plan, self.offset_s)
        self._order = PictureOrder()

    def _open(self, extra_metadata: dict[str, str]) -> OutputContainer:
        info, plan = self.info, self.plan
        if info.files:
            return self._open_for_sequence(extra_metadata)
        converted = {entry.index: entry.target for entry in plan.converted}
        source = open_film(info.path)
        try:
            tags = {**self._with_own_timecode(carried_metadata(source)), **extra_metadata}
            options = dict(plan.container_options)
            known = {"mp4": _MP4_TAGS, "mov": _QUICKTIME_TAGS}.get(plan.format_name)
            unusual = [] if known is None else sorted(key for key in tags if key.lower() not in known)
            if unusual and any(self.info.streams[index].is_attached_picture for index in plan.kept):
                self._warn(f"beside cover art MP4 holds usual tags only; left out: {', '.join(unusual)}")
            elif unusual:
                options["movflags"] += "+use_metadata_tags"
            output = self._create(options, tags)
            for stream in source.streams:
                if stream.index == info.video_index:
                    self._video = self._add_picture(output, stream)
                    self._track_number = len(self._side) + 1  # Matroska numbers tracks from 1, attachments not
                elif stream.index in plan.kept:
                    added = add_side_stream(output, source, stream)
                    if added is not None:
                        self._side[stream.index] = added
                        if (clock := SampleClock.wanted(stream, output)) is not None:
                            self._sample_clocks[stream.index] = clock
                        if (fit := PcmClock.wanted(stream, output) or Preroll.wanted(stream, output)) is not None:
                            self._fitted[stream.index] = fit
                elif stream.index in converted:
                    added, converter = add_converter(output, stream, converted[stream.index], self.offset_s)
                    self._side[stream.index], self._converters[stream.index] = added, converter
                    self._source = source
            self._has_chapters = copy_chapters(source, output, self.offset_s, self._end_s)
            output.start_encoding()
        finally:
            if self._source is None:
                source.close()
        return output

    def _open_for_sequence(self, tags: dict[str, str]) -> OutputContainer:
        """Numbered files have no streams to bring along."""
        output = self._create(self.plan.container_options, {**self._with_own_timecode(self.info.metadata), **tags})
        self._video, self._track_number = self._add_picture(output, None), 1
        output.start_encoding()
        return output

    def _create(self, options: dict[str, str], tags: dict[str, str]) -> OutputContainer:
        output = av.open(
            f"file:{self.path}",
            "w",
            format=self.plan.format_name,
            container_options=options,
            metadata_errors="surrogateescape",
        )
        output.metadata.update(tags)
        return output

    def _add_picture(self, output: OutputContainer, source: Stream | None) -> VideoStream:
        added = output.add_stream(self.plan.encoder, rate=self.info.average_rate or Fraction(25))
        assert isinstance(added, VideoStream)
        context = added.codec_context
        assert isinstance(context, VideoCodecContext)
        configure(context, self.info, self.plan)
        added.time_base = self.info.time_base
        if self.info.picture.display_matrix is not None:
            added.set_display_matrix(self.info.picture.display_matrix)
        if source is not None:
            added.metadata.update(self._with_own_timecode(carried_tags(source, self.plan.format_name, re_encoded=True)))
            added.disposition = source.disposition
        return added

    def _with_own_timecode(self, tags: dict[str, str]) -> dict[str, str]:
        """Tags whose time code is that of the output's zero, at its rate."""
        rate = self.info.average_rate or Fraction(25)
        skipped = round((self.offset_s - self.info.first_pts_ticks * self.info.time_base) * rate)
        own = dict(tags)
        for key, value in tags.items():
            if key.lower() == "timecode":
                code = doubled_timecode(value) if self.info.is_doubled else value
                code = later_timecode(code, skipped, rate) if code is not None and skipped > 0 else code
                own[key] = code or value
        return own

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def write(
        self,
        y: npt.NDArray[np.generic],
        cb: npt.NDArray[np.generic],
        cr: npt.NDArray[np.generic],
        pts_ticks: int,
        time_base: Fraction,
        duration_ticks: int | None = None,
    ) -> None:
        """Encode one frame: planes in the plan's depth and subsampling, shown at ``pts_ticks * time_base`` seconds.

        Shapes (H, W) and twice (ceil(H / 2^v), ceil(W / 2^h)); uint8, or uint16 above 8 bits.
        """
        try:
            self._mux(self._encoder.encode(y, cb, cr, pts_ticks, time_base, duration_ticks))
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        self.frames += 1

    def put(self, segment: SegmentFile, packet: Packet[Any]) -> None:
        """Take the picture's next packet from an encoded segment, instead of encoding frames with `write`.

        Raises `FilmEncodeError` for a segment that was encoded in another way.
        """
        if segment is not self._segment:
            extradata = self._video.codec_context.extradata or b""
            if segment.encoder != self.plan.encoder or segment.extradata != extradata:
                self._refuse(segment, "they were encoded in different ways")
            self._segment = segment
        try:
            self._order.arrange(packet)
            self._mux([packet])
        except ValueError as error:
            self._refuse(segment, str(error))
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        self.frames += 1

    def _refuse(self, segment: SegmentFile, why: str) -> NoReturn:
        raise FilmEncodeError(
            f"{self._shown_as}: its segments cannot be joined ({why}); remove {segment.path.parent} and run again"
        )

    def _mux(self, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            packet.stream = self._video
            self._output.mux(packet)

    def copy(self, side: SidePacket) -> None:
        """Copy or convert a packet of another stream; those of streams that the plan leaves out are ignored."""
        if side.stream_index not in self._side:
            return
        converter = self._converters.get(side.stream_index)
        if converter is not None:
            self._mux_all(converter.convert(side.packet))
            return
        if (fitted := self._fitted.get(side.stream_index)) is not None:
            for packet in fitted.fit(side.packet):
                self._copy(side.stream_index, packet)
            return
        if (clock := self._sample_clocks.get(side.stream_index)) is not None:
            clock.retime(side.packet)
        self._copy(side.stream_index, side.packet)

    def _copy(self, index: int, packet: Packet[Any]) -> None:
        self._count_finer(packet, self._side[index].time_base)
        base = packet.time_base
        shift = round(self.offset_s / base)
        pts = packet.pts if packet.pts is not None else packet.dts
        dts = packet.dts if packet.dts is not None else packet.pts
        if pts is None or dts is None:
            pts = dts = self._ends.get(index, shift)
            if not self.info.streams[index].is_attached_picture:
                self._warn(f"some packets of stream {index} carry no time; placed behind the ones before")
        last = self._last_dts.get(index)
        earliest = None if last is None else last + self._least_step(index, base)
        if earliest is not None and dts < earliest:
            self._moved_s[index] = max(self._moved_s[index], (earliest - dts) * base)
            dts, pts = earliest, max(pts, earliest)
            self._warn(f"some packets of stream {index} go back in time; moved behind the ones before")
        if not packet.duration and last is not None and packet.stream.type == "audio":
            packet.duration = dts - last  # without one, MP4 ends the track before its last packet
        self._last_dts[index] = dts
        self._ends[index] = dts + max(1, packet.duration or 1)
        packet.pts, packet.dts = pts - shift, dts - shift
        packet.stream = self._side[index]
        self._mux_all([packet])

    def _count_finer(self, packet: Packet[Any], wanted: Fraction | None) -> None:
        """Divide the ticks of a container that counts in whole packets, as AVI does, where the offset lies between."""
        parts = (self.offset_s / packet.time_base).denominator
        fits = packet.time_base.denominator * parts <= _MOST_DENOMINATOR
        if parts > 1 and fits and wanted is not None and packet.time_base > wanted:
            packet.pts = None if packet.pts is None else packet.pts * parts
            packet.dts = None if packet.dts is None else packet.dts * parts
            packet.duration = (packet.duration or 0) * parts
            packet.time_base /= parts

    def _least_step(self, index: int, base: Fraction) -> int:
        """By how many ticks of ``base`` packets of a stream have to follow each other."""
        if self._output.format.flags & _TS_NONSTRICT:
            return 0
        return max(1, math.ceil((self._side[index].time_base or base) / base))

    def _mux_all(self, packets: Iterable[Packet[Any]]) -> None:
        try:
            for packet in packets:
                self.packets[packet.stream_index] += packet.size > EMPTY_BYTES
                self.bytes[packet.stream_index] += packet.size
                self._output.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def stream_map(self) -> list[dict[str, Any]]:
        """What became of each stream of the source, ready for JSON; ``packets`` and ``bytes`` are those written."""
        became = {self.info.video_index: ("coloured", self.plan.encoder)}
        became |= dict.fromkeys(self.plan.kept, ("copied", ""))
        became |= {entry.index: ("converted", entry.in_words) for entry in self.plan.converted}
        became |= {entry.index: ("left out", entry.reason) for entry in self.plan.left_out}
        streams: list[dict[str, Any]] = []
        for stream in self.info.streams:
            action, detail = became.get(stream.index, ("left out", ""))
            described = {"kind": stream.kind, "codec": stream.codec, "language": stream.language, "action": action}
            entry = {"source_index": stream.index, **described, "detail": detail, "output_index": None}
            side = self._side.get(stream.index)
            if stream.index == self.info.video_index:
                entry["output_index"] = self._index_when_read(self._video)
            elif side is not None and side in self._dropped():
                entry |= {"action": "left out", "detail": "empty: nothing in it can be read"}
            elif side is not None:
                entry |= {"output_index": self._index_when_read(side), "packets": self.packets[side.index]}
                entry["bytes"] = self.bytes[side.index]
                if (fitted := self._fitted.get(stream.index)) is not None:
                    entry |= fitted.record()
                if moved_s := self._moved_s[stream.index]:
                    entry["moved_s"] = str(moved_s)
            streams.append(entry)
        return streams

    def _index_when_read(self, stream: Stream) -> int:
        """Cover art is no track of an MP4 file: it counts behind all tracks, those of chapters and time code too."""
        dropped = self._dropped()
        if self.plan.format_name != "mp4":
            return stream.index - sum(side.index < stream.index for side in dropped)
        covers = [side.index for index, side in self._side.items() if self.info.streams[index].is_attached_picture]
        before = sum(index < stream.index for index in covers)
        if stream.index not in covers:
            return stream.index - before - sum(side.index < stream.index for side in dropped)
        made_up = self._has_chapters + any(key.lower() == "timecode" for key in self._output.metadata)
        return 1 + len(self._side) - len(covers) - len(dropped) + made_up + before

    def _dropped(self) -> list[Stream]:
        """Tracks without a packet, which MP4 and QuickTime do not get; those of text end with an empty one."""
        if self.plan.format_name not in ("mp4", "mov"):
            return []
        tracks = [side for index, side in self._side.items() if not self.info.streams[index].is_attached_picture]
        return [side for side in tracks if side.type in ("audio", "video", "data") and not self.bytes[side.index]]

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning("%s: %s", self.info.path.name, text)

    def close(self) -> None:
        """Encode what is left and finish the file."""
        if self._closed:
            return
        self._closed = True
        try:
            self._mux(self._encoder.flush())
            for converter in self._converters.values():
                self._mux_all(converter.finish())
            for track in (*self._converters.values(), *self._fitted.values()):
                for text in track.warnings:
                    self._warn(text)
            for index, stream in self._side.items():
                if stream.type in ("audio", "video") and not self.packets[stream.index]:
                    self._warn(f"{stream.type} stream {index} is empty: the source has nothing there that can be read")
        except (av.error.FFmpegError, OSError, FilmEncodeError) as error:
            self._give_up()
            raise self._failure(error) from error
        try:
            self._close_files()
            self._record_aspect()
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _record_aspect(self) -> None:
        """Matroska's display size, which PyAV's muxer cannot be told; MP4 and QuickTime have it already."""
        picture = self.info.picture
        aspect = picture.sample_aspect_ratio
        if aspect is None or aspect == 1 or self.plan.format_name not in ("matroska", "webm"):
            return
        try:
            size = display_size(picture.width_px, picture.height_px, aspect)
            set_display_size(self.path, self._track_number, *size)
        except LayoutError as error:
            self._warn(f"the sample aspect {aspect} is not recorded in the container ({error})")

    def abort(self) -> None:
        """Close the unfinished file without encoding anything more."""
        if not self._closed:
            self._closed = True
            self._give_up()

    def _close_files(self) -> None:
        if self._source is not None:
            self._source.close()
        self._output.close()

    def _give_up(self) -> None:
        try:
            self._close_files()
        except (av.error.FFmpegError, OSError) as error:
            log.debug("closing the unfinished %s: %s", self.path, error)

    def _failure(self, error: Exception) -> FilmEncodeError:
        if isinstance(error, FilmEncodeError):
            return error
        number = getattr(error, "errno", None)
        words = in_words(error)
        remedy = {28: "; free some space and run again", 13: "; choose another folder", 30: "; choose another folder"}
        return FilmEncodeError(f"{self._shown_as}: cannot be written: {words}{remedy.get(number or 0, '')}")
