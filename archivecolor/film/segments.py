"""Encoded pictures in files of their own, exactly as the encoder gave them, and their way into one film.

A container would round their times or change their form on the way; the film that is joined from segments is to be
the one that a single encoder's packets would have made. A segment file is a line of JSON, which says what a decoder has
to know, and then each packet behind its pts, dts, duration, size and whether it is a key frame.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import av.error
from av.codec.codec import UnknownCodecError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from archivecolor.disk import Patience, patiently, write_at
from archivecolor.errors import FilmEncodeError
from archivecolor.film.ffv1 import slice_checksums
from archivecolor.film.frames import SidePacket
from archivecolor.film.opening import in_words

_RECORD: Final = struct.Struct("<qqqI?")
_NO_TIME: Final = -(1 << 63)
_VERSION: Final = 1
_DECODERS: Final = {"av1": "libdav1d"}  # FFmpeg's own needs hardware


class SegmentFileWriter:
    """Write packets of ``context`` to ``path``. ``sha256`` is that of all that was written.

    A write that fails for want of space is taken back and, once ``wait`` returns, tried again.
    """

    def __init__(self, path: Path, context: VideoCodecContext, wait: Patience) -> None:
        self.path, self.size_bytes, self.packets = path, 0, 0
        self._digest = hashlib.sha256()
        self._wait = wait
        self._descriptor = patiently(wait, lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
        head = {
            "segment": _VERSION,
            "encoder": context.name,
            "time_base": str(context.time_base),
            "extradata": (context.extradata or b"").hex(),
            "size_px": [context.width, context.height],
            "pixel_format": context.pix_fmt,
        }
        self._append(json.dumps(head).encode() + b"\n")

    @property
    def sha256(self) -> str:
        """Of what was written so far, hexadecimal."""
        return self._digest.hexdigest()

    def write(self, packet: Packet[Any]) -> None:
        """Append a packet."""
        pts, dts = (_NO_TIME if time is None else time for time in (packet.pts, packet.dts))
        self._append(_RECORD.pack(pts, dts, packet.duration or 0, packet.size, packet.is_keyframe) + bytes(packet))
        self.packets += 1

    def _append(self, data: bytes) -> None:
        patiently(self._wait, lambda: write_at(self._descriptor, self.size_bytes, data))
        self.size_bytes += len(data)
        self._digest.update(data)

    def close(self) -> None:
        """Have it all on disk."""
        try:
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def abort(self) -> None:
        """Close the file as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True)
class SegmentFile:
    """A segment that was written; ``time_base`` is that of its packets' times."""

    path: Path
    encoder: str
    time_base: Fraction
    extradata: bytes
    size_px: tuple[int, int]
    pixel_format: str

    @classmethod
    def open(cls, path: Path) -> SegmentFile:
        """Read what ``path`` says of itself; raises `FilmEncodeError` where it is no segment."""
        try:
            with path.open("rb") as stream:
                head = json.loads(stream.readline())
            width, height = head["size_px"]
            base, extradata = Fraction(head["time_base"]), bytes.fromhex(head["extradata"])
            return cls(path, head["encoder"], base, extradata, (width, height), head["pixel_format"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FilmEncodeError(f"{path}: cannot be read again ({error}); remove it and run again") from error

    def packets(self) -> Iterator[Packet[Any]]:
        """Its packets, in the order of decoding; raises `FilmEncodeError` where the file ends too early."""
        with self.path.open("rb") as stream:
            stream.readline()
            while record := stream.read(_RECORD.size):
                data = b""
                if len(record) == _RECORD.size:
                    pts, dts, duration, size, is_keyframe = _RECORD.unpack(record)
                    data = stream.read(size)
                if not data or len(data) != size:
                    raise FilmEncodeError(f"{self.path}: is cut short; remove it and run again")
                packet: Packet[Any] = Packet(data)
                packet.pts, packet.dts = (None if time == _NO_TIME else time for time in (pts, dts))
                packet.duration, packet.time_base, packet.is_keyframe = duration, self.time_base, is_keyframe
                yield packet

    def count_frames(self) -> int:
        """Read the segment back and count its frames, a packet each.

        FFV1's slices carry checksums, which are verified. Of other codecs the key frames are decoded, where there is a
        decoder: that the packets are those which the encoder gave, the file's checksum says. Raises `FilmEncodeError`.
        """
        if self.encoder == "ffv1":
            return sum(all(slice_checksums(bytes(packet)) or [False]) for packet in self.packets())
        decoder = self._decoder()
        count = key_frames = decoded = 0
        try:
            for packet in self.packets():
                count += 1
                if decoder is not None and packet.is_keyframe:
                    key_frames += 1
                    decoded += len(decoder.decode(packet))
            if decoder is not None:
                decoded += len(decoder.decode(None))
        except av.error.FFmpegError as error:
            raise FilmEncodeError(
                f"{self.path}: what {self.encoder} wrote does not decode ({in_words(error)})"
            ) from error
        if decoder is not None and decoded != key_frames:
            raise FilmEncodeError(f"{self.path}: of {key_frames} key frames {self.encoder} wrote {decoded} decode")
        return count

    def _decoder(self) -> VideoCodecContext | None:
        try:
            name = av.Codec(self.encoder, "w").canonical_name
            context = av.CodecContext.create(_DECODERS.get(name, name), "r")
        except UnknownCodecError:
            return None
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = self.size_px
        context.pix_fmt = self.pixel_format
        context.thread_type = "AUTO"
        if self.extradata:
            context.extradata = self.extradata
        return context


class PictureOrder:
    """Gives the packets of one segment after the other decoding times as a single encoder would have.

    An encoder that reorders begins its decoding times a few frames early, ``delay`` of them; from then on each is the
    time of the frame that is shown ``delay`` frames before. Segments that each begin early would go back in time.
    """

    def __init__(self) -> None:
        self._delay = 0
        self._count = 0
        self._times: list[int] = []
        self._first: int | None = None

    def arrange(self, packet: Packet[Any]) -> None:
        """Set the next packet's ``dts``; raises ValueError where its frame would be shown before it is decoded."""
        if packet.pts is None:
            raise ValueError("a packet without a time")
        self._first = packet.pts if self._first is None else self._first
        if self._count == self._delay and packet.dts is not None and packet.dts < self._first:
            self._delay += 1
        heapq.heappush(self._times, packet.pts)
        if self._count >= self._delay:
            packet.dts = heapq.heappop(self._times)
            if packet.dts > packet.pts:
                raise ValueError("its pictures are in an order that the first segment's were not")
        self._count += 1


def interleave(
    segments: Iterable[SegmentFile], side: Iterator[SidePacket], offset_s: Fraction
) -> Iterator[tuple[SegmentFile, Packet[Any]] | SidePacket]:
    """The segments' packets, each behind those of other streams that begin no later.

    ``offset_s`` is what the film's times have been moved by, and the side packets' not yet.
    """
    waiting = next(side, None)
    for segment in segments:
        for packet in segment.packets():
            time_s = (packet.pts or 0) * segment.time_base + offset_s
            while waiting is not None and _begins_s(waiting) <= time_s:
                yield waiting
                waiting = next(side, None)
            yield segment, packet
    if waiting is not None:
        yield waiting
        yield from side


def _begins_s(side: SidePacket) -> Fraction:
    packet = side.packet
    stamp = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if stamp is None else stamp * packet.time_base
