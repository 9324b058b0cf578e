"""Reading a film: its luma as decoded, each frame at its own time, and the packets of every other stream."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from archivecolor.errors import FilmDecodeError
from archivecolor.film.clock import FrameClock, SideClock
from archivecolor.film.deinterlace import Deinterlace, Deinterlacer, after_deinterlacing
from archivecolor.film.ffv1 import SliceCheck
from archivecolor.film.field_order import FieldOrderReader
from archivecolor.film.frames import LumaFrame, ReadReport, SidePacket
from archivecolor.film.info import FilmInfo
from archivecolor.film.matroska import pixel_crop
from archivecolor.film.opening import TS_DISCONT, in_words, open_film
from archivecolor.film.pixels import UnusablePixelFormatError, luma_plane, pixel_format
from archivecolor.film.probe import probe
from archivecolor.film.resizing import fit_luma
from archivecolor.film.strays import without_strays

log = logging.getLogger(__name__)

_MOST_DEMUX_ERRORS: Final = 64  # in a row, before the rest of a file is given up
_MOST_PENDING: Final = 256
_SEEK_MARGIN_S: Final = 1
_READ_ON_S: Final = 3  # past the end of a cut, for subtitles that lie later in the file than its picture


def exact_time(seconds: float | Fraction) -> Fraction:
    """The fraction that a decimal such as 0.8 is meant to be; binary 0.8 lies behind the frame at 4/5 s."""
    return Fraction(seconds).limit_denominator(1_000_000)


class FilmReader:
    """Iterate once over a film: `LumaFrame` and `SidePacket` in the order of the file.

    ``start_s`` and ``end_s`` cut, in seconds from the first frame: frames with start <= time < end are given, and the
    packets of other streams that begin in that range; times stay on the source's clock. ``time_offset_s`` is what an
    output should subtract from every time. ``deinterlace`` turns interlaced pictures into progressive frames;
    ``info`` is the film as the frames given are, ``probed`` as the file has it. Frames of another size than the first
    are scaled to it, or are an error without ``resize``. ``threads`` is for the decoder, 0 for one a core. Frames
    before ``from_s``, on the source's clock, are left out, and passed over where one can seek in the file.

    Raises `FilmOpenError` (see `probe`), and `FilmDecodeError` from iteration when no frame can be decoded or the
    picture changes its size. Undecodable packets are counted in ``report`` and decoding goes on.
    """

    def __init__(
        self,
        path: Path | FilmInfo,
        *,
        start_s: float | Fraction | None = None,
        end_s: float | Fraction | None = None,
        deinterlace: Deinterlace = "off",
        resize: bool = True,
        threads: int = 0,
        from_s: Fraction | None = None,
    ) -> None:
        self._film = self.probed = path if isinstance(path, FilmInfo) else probe(Path(path))
        self._film.require_sdr()
        self.info = after_deinterlacing(self._film, deinterlace)
        self.report = ReadReport()
        self._threads, self._resize = threads, resize
        first_s = self._film.first_pts_ticks * self._film.time_base
        self._start_s = first_s + exact_time(start_s) if start_s else None
        self._end_s = first_s + exact_time(end_s) if end_s is not None else None
        self._from_s = from_s
        self._deinterlacer = Deinterlacer(deinterlace, self._film.picture.bit_depth) if deinterlace != "off" else None
        self._field_order = FieldOrderReader()
        self._slices = SliceCheck() if self._film.codec == "ffv1" else None
        self._clock = FrameClock(self._film, self.report)
        self._side_clock = SideClock(self._clock, self._film.time_base)
        self._pending: dict[int, None] = {}  # times of packets whose frames are still to come
        self._container, self._video = self._open("AUTO")
        if self._start_s is not None or self._from_s is not None:
            self._seek(max(time_s for time_s in (self._start_s, self._from_s) if time_s is not None))
        if self._film.container.startswith("matroska") and any(crop := pixel_crop(self._film.path)):
            hidden = ", ".join(f"{n} {side}" for n, side in zip(crop, ("top", "bottom", "left", "right"), strict=True))
            self.report.warn(f"{self._film.path.name}: asks players to hide its edges ({hidden}); they are kept")
        if self._film.picture.format.has_alpha:
            self.report.warn(f"{self._film.path.name}: the picture's transparency is left out")

    @property
    def time_offset_s(self) -> Fraction:
        """What to subtract from every time of every stream in an output: the cut's start, or the film's origin.

        A whole number of ticks, or the picture could not be moved by it.
        """
        base = self._film.time_base
        return self._film.origin_s if self._start_s is None else self._start_s // base * base

    def __enter__(self) -> FilmReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; frames already given stay valid."""
        self._container.close()

    def __iter__(self) -> Iterator[LumaFrame | SidePacket]:
        reading_on_until: Fraction | None = None
        sound_to_come = self._sound_up_to_the_end()
        for packet in self._packets():
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is not None and self._end_s is not None:
                if stamp * packet.time_base >= self._end_s:
                    sound_to_come.discard(packet.stream_index)
                past = reading_on_until is not None and stamp * packet.time_base > reading_on_until
                if past and not sound_to_come:
                    break
            if packet.stream_index != self._film.video_index:
                yield from self._cut(self._side_clock.place(packet))
            elif reading_on_until is None:
                for frame in self._decode(packet):
                    if self._end_s is not None and frame.time_s >= self._end_s:
                        reading_on_until = self._end_s + _READ_ON_S
                        break
                    if self._is_wanted(frame.time_s) and self._is_due(frame.time_s):
                        yield from self._give(frame)
                yield from self._cut(self._side_clock.ready())
        if reading_on_until is None:
            for frame in self._drain():
                if self._is_wanted(frame.time_s) and self._is_due(frame.time_s):
                    yield from self._give(frame)
        yield from self._cut(self._side_clock.ready())
        yield from self._cut(self._side_clock.finish())
        yield from self._give(None)
        self._finish(reading_on_until is not None)

    def side_packets(self) -> Iterator[SidePacket]:
        """Instead of iterating over it all: the packets of the other streams alone; nothing is decoded.

        Where the film's clock starts anew only decoding tells by how much they move: iterate then.
        """
        sound_to_come = self._sound_up_to_the_end()
        begun = self._start_s is None
        for packet in self._packets():
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is not None and self._end_s is not None:
                if stamp * packet.time_base >= self._end_s:
                    sound_to_come.discard(packet.stream_index)
                if stamp * packet.time_base > self._end_s + _READ_ON_S and not sound_to_come:
                    break
            begun = begun or (stamp is not None and self._is_wanted(stamp * packet.time_base))
            if packet.stream_index != self._film.video_index:
                placed = self._side_clock.place(packet)
                yield from placed if stamp is None and begun else self._cut(placed)
        yield from self._cut(self._side_clock.finish())

    def _sound_up_to_the_end(self) -> set[int]:
        """Tracks of sound that reach the end of the cut, wherever in the file that part of them lies."""
        if self._end_s is None:
            return set()
        tracks = set()
        for track in self._container.streams.audio:
            ends_s = None
            if track.duration is not None and track.time_base is not None:
                ends_s = ((track.start_time or 0) + track.duration) * track.time_base
            if ends_s is None or ends_s >= self._end_s:
                tracks.add(track.index)
        return tracks

    def _give(self, frame: LumaFrame | None) -> Iterator[LumaFrame]:
        """A frame of the cut on its way out, or, with None, what the deinterlacer still holds."""
        if frame is not None:
            self.report.frames += 1
        ready: Iterable[LumaFrame] = [] if frame is None else [frame]
        if self._deinterlacer is not None:
            ready = self._deinterlacer.flush() if frame is None else self._deinterlacer.push(frame)
        for given in ready:
            self.report.given += 1
            if self._deinterlacer is not None:
                self.report.deinterlaced = self._deinterlacer.deinterlaced
            yield given

    # Opening and seeking

    def _open(self, thread_type: str) -> tuple[InputContainer, VideoStream]:
        container = open_film(self._film.path)
        video = container.streams[self._film.video_index]
        assert isinstance(video, VideoStream)
        video.codec_context.thread_type = thread_type
        video.codec_context.thread_count = self._threads
        return container, video

    def _seek(self, start_s: Fraction) -> None:
        """Go to a key frame at or before ``start_s``, or stay at the beginning where the file cannot seek."""
        target = int((start_s - _SEEK_MARGIN_S) / self._film.time_base)
        try:
            for _ in range(2):  # once to see where it lands, once for real
                self._container.seek(target, stream=self._video, backward=True)
                landed = next(self._container.decode(self._video))
                if landed.pts is None or landed.pts * self._film.time_base > start_s:
                    raise LookupError("landed behind the target")
            self._container.seek(target, stream=self._video, backward=True)
        except (av.error.FFmpegError, LookupError, StopIteration):
            self._container.close()
            self._container, self._video = self._open("AUTO")

    def _cut(self, placed: Iterable[SidePacket]) -> Iterator[SidePacket]:
        """The packets that begin in the cut, texts no longer than it."""
        for side in placed:
            if self._in_cut(side.packet):
                self._shorten(side.packet)
                yield side

    def _shorten(self, packet: Packet[Stream]) -> None:
        if self._end_s is not None and packet.stream.type == "subtitle" and packet.pts is not None and packet.duration:
            left = math.ceil(self._end_s / packet.time_base) - packet.pts
            packet.duration = max(1, min(packet.duration, left))

    def _in_cut(self, packet: Packet[Stream]) -> bool:
        if self._start_s is None and self._end_s is None:
            return True
        if packet.stream.disposition & Disposition.attached_pic:
            return True  # cover art has no time: it belongs to every part of the film
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            return self._clock.last_pts is not None
        return self._is_wanted(stamp * packet.time_base)

    def _is_wanted(self, time_s: Fraction) -> bool:
        begun = self._start_s is None or time_s >= self._start_s
        return begun and (self._end_s is None or time_s < self._end_s)

    def _is_due(self, time_s: Fraction) -> bool:
        return self._from_s is None or time_s >= self._from_s

    # Demuxing and decoding

    def _packets(self) -> Iterator[Packet[Stream]]:
        """Packets with something in them, at times that can be."""
        packets = self._demuxed()
        if self._container.format.flags & TS_DISCONT:
            return without_strays(packets, self.report, self._film.path.name)
        return packets

    def _demuxed(self) -> Iterator[Packet[Stream]]:
        """Packets with something in them; goes on past damaged spots of the file."""
        in_a_row = 0
        while True:
            try:
                for packet in self._container.demux():
                    in_a_row = 0
                    if packet.size:  # an empty one would flush the decoder
                        yield packet
                return
            except av.error.FFmpegError as error:
                in_a_row += 1
                self.report.warn(f"{self._film.path.name}: damaged file, parts cannot be read ({in_words(error)})")
                if in_a_row >= _MOST_DEMUX_ERRORS:
                    return

    def _decode(self, packet: Packet[Stream] | None) -> Iterator[LumaFrame]:
        if packet is not None and packet.pts is not None and not packet.is_discard:
            self._pending[packet.pts] = None
            self._clock.expect(packet.pts)
            if len(self._pending) > _MOST_PENDING:
                del self._pending[next(iter(self._pending))]
        if packet is not None and self._slices is not None and self._slices.is_damaged(bytes(packet)):
            self.report.corrupt_frames += 1
            self.report.warn(f"{self._film.path.name}: some FFV1 slices have wrong checksums; they are concealed")
        try:
            frames = self._video.decode(packet)
        except av.error.EOFError:
            return
        except av.error.MemoryError as error:
            raise FilmDecodeError(f"{self._film.path}: not enough memory to decode it") from error
        except av.error.FFmpegError as error:
            self.report.undecodable_packets += 1
            self.report.warn(f"{self._film.path.name}: some packets cannot be decoded ({in_words(error)})")
            return
        for frame in frames:
            if frame.pts is not None:
                self._pending.pop(frame.pts, None)
            yield self._luma_frame(frame)

    def _drain(self) -> Iterator[LumaFrame]:
        """The frames still in the decoder.

        An error while a frame-threaded decoder drains hides the frames behind it, so frames whose packets went in but
        which never came out are decoded once more without frame threads.
        """
        yield from self._decode(None)
        last = self._clock.last_pts
        missing = {pts for pts in self._pending if last is None or pts + self._clock.shift_ticks > last}
        if not missing or not self._video.codec_context.thread_type & av.codec.context.ThreadType.FRAME:
            return
        self._container.close()
        self._container, self._video = self._open("SLICE")
        try:
            self._container.seek(min(missing), stream=self._video, backward=True)
        except av.error.FFmpegError:
            return  # counted as missing at the end
        self._pending.clear()
        self.report.undecodable_packets = max(0, self.report.undecodable_packets - len(missing))
        for packet in [*(p for p in self._packets() if p.stream_index == self._film.video_index), None]:
            try:
                frames = self._video.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.report.undecodable_packets += packet is not None and packet.pts in missing
                continue
            for frame in frames:
                if frame.pts in missing:
                    yield self._luma_frame(frame)

    # Frames

    def _luma_frame(self, frame: av.VideoFrame) -> LumaFrame:
        picture, name = self._film.picture, self._film.path.name
        is_first = self._clock.last_pts is None and self._start_s is None and self._from_s is None
        pts = self._clock.place(frame)
        changed = (frame.width, frame.height) != (picture.width_px, picture.height_px)
        if changed:
            self._note_other_size(frame, pts)
        try:
            if frame.format.name != picture.pix_fmt:
                frame = self._same_format(frame)
            luma = luma_plane(frame, picture.matrix)
            if changed:
                luma = fit_luma(luma, self._video.codec_context.sample_aspect_ratio or Fraction(1), picture)
        except (UnusablePixelFormatError, av.error.FFmpegError) as error:
            raise FilmDecodeError(f"{self._film.path}: its picture cannot be used ({error})") from error
        if is_first:
            self._count_undecodable_beginning(pts)
        if frame.is_corrupt:
            self.report.corrupt_frames += 1
            self.report.warn(f"{name}: some frames are damaged in the source")
        return LumaFrame(
            luma=luma,
            pts_ticks=pts,
            time_base=self._film.time_base,
            duration_ticks=frame.duration or None,
            is_corrupt=frame.is_corrupt,
            top_field_first=self._top_field_first(frame),
        )

    def _top_field_first(self, frame: av.VideoFrame) -> bool | None:
        """None for a progressive frame. Codecs that do not mark their frames leave it to the container."""
        if frame.interlaced_frame:
            return self._field_order.top_field_first(frame)
        return self._film.picture.top_field_first if self._film.picture.marked_by_container else None

    def _note_other_size(self, frame: av.VideoFrame, pts: int) -> None:
        picture = self._film.picture
        at = (
            f"the picture changes from {picture.width_px}x{picture.height_px} to {frame.width}x{frame.height} "
            f"at {float(pts * self._film.time_base):.2f} s"
        )
        if not self._resize:
            raise FilmDecodeError(f"{self._film.path}: {at}; split the film there and colourise the parts")
        self.report.resized_frames += 1
        if self.report.resized_frames == 1:
            self.report.warn(f"{self._film.path.name}: {at}; frames of another size are scaled to the first one's")

    def _count_undecodable_beginning(self, first_pts: int) -> None:
        """Packets that came before the first frame's and gave none: the film begins without a key frame."""
        lost = [pts for pts in self._pending if pts < first_pts]
        if lost:
            self.report.undecodable_packets += len(lost)
            self.report.warn(
                f"{self._film.path.name}: begins without a key frame; its first {len(lost)} pictures cannot be decoded"
            )

    def _same_format(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame whose format changed in mid-stream, in the film's own unless its luma is the same kind anyway."""
        picture = self._film.picture
        now, then = pixel_format(frame.format.name), picture.format
        same_range = now.full_range_untagged == then.full_range_untagged
        if now.bit_depth == then.bit_depth and same_range and now.is_rgb == then.is_rgb:
            return frame
        self.report.warn(
            f"{self._film.path.name}: the pixel format changes in mid-film ({then.name} to {now.name}); converted"
        )
        return frame.reformat(format=picture.pix_fmt)

    def _finish(self, was_cut: bool) -> None:
        report, info = self.report, self._film
        if not report.frames:
            if self._start_s is not None or self._end_s is not None:
                length = "" if info.duration_s is None else f"; the film is {info.duration_s:.3f} s long"
                raise FilmDecodeError(f"{info.path}: no frame lies in the cut that was asked for{length}")
            raise FilmDecodeError(f"{info.path}: no frame of it can be decoded")
        last_end = self._clock.last_end
        if was_cut or self._end_s is not None or last_end is None or info.duration_s is None:
            return
        end_s = float((last_end - self._clock.shift_ticks) * info.time_base)
        expected_s = float(info.first_pts_ticks * info.time_base) + info.duration_s
        is_exact = info.container.startswith(("mov", "avi"))
        if is_exact and expected_s - end_s > max(0.5, 3 * self._clock.nominal_ticks * float(info.time_base)):
            report.warn(
                f"{info.path.name}: the picture ends at {end_s:.2f} s of the {expected_s:.2f} s that the file "
                "announces; the rest is missing or damaged"
            )
