"""Writing a film as numbered DPX, TIFF or PNG files."""

from __future__ import annotations

import logging
import os
import shutil
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext

from archivecolor import __version__
from archivecolor.errors import FilmEncodeError
from archivecolor.film.dpx import with_header
from archivecolor.film.frames import SidePacket
from archivecolor.film.info import SEQUENCE, FilmInfo
from archivecolor.film.opening import in_words
from archivecolor.film.pixels import plane_view
from archivecolor.film.profiles import FRAME_EXTENSIONS, OutputPlan, OutputSettings
from archivecolor.film.sequences import is_pattern, numbered_name, sequence_files
from archivecolor.film.still_tags import DIGITAL_SOURCE_TYPE, StillTags, read_tags
from archivecolor.film.stills import write_still
from archivecolor.film.streams import LeftOut
from archivecolor.film.timecode import later_timecode
from archivecolor.matrices import MATRICES

log = logging.getLogger(__name__)

_PLANE_BITS: Final = 16
_CREATOR: Final = f"archivecolor {__version__}; {DIGITAL_SOURCE_TYPE.rpartition('/')[2]}"
_DPX_FORMATS: Final = {8: "rgb24", 10: "gbrp10be", 12: "gbrp12be", 16: "rgb48be"}


def plan_sequence(info: FilmInfo, output: Path, settings: OutputSettings) -> OutputPlan:
    """Decide an output such as ``colour/%06d.tif``: R'G'B' in the source's depth where the format has it.

    Raises `FilmEncodeError` for what an image sequence cannot be, and `FilmOpenError` for an HDR source.
    """
    info.require_sdr()
    kind = output.suffix.lower()
    if kind not in FRAME_EXTENSIONS:
        raise FilmEncodeError(
            f"{output}: image sequences are written as {', '.join(FRAME_EXTENSIONS)}; not as {kind!r}"
        )
    if settings.keep_luma:
        raise FilmEncodeError(f"{output}: R'G'B' frames have no luma plane to keep; leave --recombine at lab")
    if settings.profile or settings.codec or settings.crf is not None or settings.preset or settings.pix_fmt:
        raise FilmEncodeError(f"{output}: an image sequence takes no profile and no encoder settings; leave them out")
    warnings = []
    if info.is_variable_rate:
        warnings.append("the film's frame rate varies; an image sequence holds the frames but not their times")
    why = "image sequences hold pictures only; .mkv keeps it"
    others = [LeftOut(s.index, s.kind, s.codec, why) for s in info.streams if s.index != info.video_index]
    return OutputPlan(
        format_name=SEQUENCE,
        encoder=kind.lstrip("."),
        encoder_options={},
        container_options={},
        pix_fmt="yuv444p16le",
        encoder_pix_fmt="rgb48le",
        bit_depth=_PLANE_BITS,
        log2_chroma=(0, 0),
        full_range=True,
        matrix=info.picture.matrix,
        tag_matrix=0,
        tag_primaries=1,
        tag_transfer=13,
        lossless=True,
        left_out=tuple(others),
        warnings=tuple(warnings),
    )


class SequenceWriter:
    """Write frames into ``folder`` under the names of ``pattern``, as `FilmWriter` does into a film.

    Frames of an image sequence keep their numbers; those of a film are counted from 1. Interface and errors are
    `FilmWriter`'s.
    """

    def __init__(self, folder: Path, pattern: Path, info: FilmInfo, plan: OutputPlan) -> None:
        assert is_pattern(pattern)
        self.folder, self.pattern, self.info, self.plan = folder, pattern, info, plan
        self.frames = 0
        self.warnings: list[str] = []
        picture = info.picture
        narrow = {".dpx": (8, 10, 12, 16)}.get(pattern.suffix.lower(), (8, 16))
        self._bits = next(bits for bits in narrow if bits >= picture.bit_depth)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise FilmEncodeError(
                f"{pattern.parent}: cannot be made ({error.strerror}); choose another place for the output"
            ) from error

    def __enter__(self) -> SequenceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def write(
        self,
        y: npt.NDArray[np.generic],
        cb: npt.NDArray[np.generic],
        cr: npt.NDArray[np.generic],
        pts_ticks: int,
        time_base: Fraction,
        duration_ticks: int | None = None,
    ) -> None:
        """Write one frame of 16-bit full-range 4:4:4 planes."""
        number = self.frames + 1 if self.info.container != SEQUENCE else self.info.first_number + pts_ticks
        file = self.folder / numbered_name(self.pattern, number)
        rgb = self._rgb(y, cb, cr)
        if file.suffix.lower() == ".dpx":
            self._write_dpx(file, rgb, pts_ticks)
        else:
            write_still(file, rgb, shown_as=self.pattern, tags=self._tags(pts_ticks))
        self.frames += 1

    def _tags(self, pts_ticks: int) -> StillTags | None:
        """Those of the source's frame, where that is a file of its own."""
        if not self.info.files:
            return None
        source = self.info.files[pts_ticks]
        tags = read_tags(source)
        for text in tags.warnings:
            text = text.replace(source.name, self.info.path.name)
            if text not in self.warnings:
                self.warnings.append(text)
        return tags

    def copy(self, side: SidePacket) -> None:
        """Nothing: an image sequence holds pictures only."""

    def put(self, segment: Path) -> None:
        """Take over the frames of a finished segment, a folder, behind those that are here; it keeps its own."""
        for number, file in sequence_files(segment / self.pattern.name).items():
            if self.info.container != SEQUENCE:
                number = self.frames + 1
            target = self.folder / numbered_name(self.pattern, number)
            try:
                try:
                    os.link(file, target)
                except OSError:  # another disk, or one without links
                    shutil.copyfile(file, target)
            except OSError as error:
                raise FilmEncodeError(f"{self.pattern}: cannot be written: {in_words(error)}") from error
            self.frames += 1

    def stream_map(self) -> list[dict[str, Any]]:
        """See `FilmWriter.stream_map`."""
        reasons = {entry.index: entry.reason for entry in self.plan.left_out}
        return [
            {
                "source_index": stream.index,
                "kind": stream.kind,
                "codec": stream.codec,
                "language": stream.language,
                "action": "coloured" if stream.index == self.info.video_index else "left out",
                "detail": reasons.get(stream.index, self.plan.encoder),
                "output_index": 0 if stream.index == self.info.video_index else None,
            }
            for stream in self.info.streams
        ]

    def _rgb(self, y: npt.NDArray[Any], cb: npt.NDArray[Any], cr: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(H, W, 3) R'G'B' code values of the output's depth, from full-range 16-bit Y'CbCr (ITU-T H.273)."""
        kr, kb = MATRICES[self.plan.matrix]
        largest = np.float32((1 << _PLANE_BITS) - 1)
        luma = y.astype(np.float32) / largest
        blue = (cb.astype(np.float32) - np.float32(1 << (_PLANE_BITS - 1))) / largest
        red = (cr.astype(np.float32) - np.float32(1 << (_PLANE_BITS - 1))) / largest
        rgb = np.empty((*y.shape, 3), np.float32)
        rgb[..., 0] = luma + np.float32(2 * (1 - kr)) * red
        rgb[..., 2] = luma + np.float32(2 * (1 - kb)) * blue
        rgb[..., 1] = (luma - np.float32(kr) * rgb[..., 0] - np.float32(kb) * rgb[..., 2]) / np.float32(1 - kr - kb)
        codes = np.rint(np.clip(rgb, 0, 1) * np.float32((1 << self._bits) - 1))
        return codes.astype(np.uint8 if self._bits == 8 else np.uint16)

    def _scan(self, pts_ticks: int) -> Path | None:
        """The DPX file that a frame was made of."""
        file = self.info.files[pts_ticks] if self.info.files else None
        return file if file is not None and file.suffix.lower() == ".dpx" else None

    def _timecode(self, pts_ticks: int) -> str | None:
        """That of a film's frame, where the film has one; a DPX file has its own."""
        info = self.info
        first = next((stream.timecode for stream in info.streams if stream.timecode), info.metadata.get("timecode"))
        if info.files or info.is_doubled or info.is_variable_rate or first is None or info.average_rate is None:
            return None
        since_s = (pts_ticks - info.first_pts_ticks) * info.time_base
        return later_timecode(first, round(since_s * info.average_rate), info.average_rate)

    def _write_dpx(self, file: Path, rgb: npt.NDArray[Any], pts_ticks: int) -> None:
        height, width, _ = rgb.shape
        name = _DPX_FORMATS[self._bits]
        encoder = av.CodecContext.create("dpx", "w")
        assert isinstance(encoder, VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt = width, height, name
        encoder.time_base = Fraction(1, 24)
        frame = av.VideoFrame(width, height, name)
        if name.startswith("gbrp"):
            for index, channel in enumerate((1, 2, 0)):
                plane_view(frame, index)[:] = rgb[..., channel]
        else:
            plane_view(frame, 0, 3)[:] = rgb
        try:
            encoded = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
            file.write_bytes(with_header(encoded, _CREATOR, self._scan(pts_ticks), self._timecode(pts_ticks)))
        except (av.error.FFmpegError, OSError) as error:
            raise FilmEncodeError(f"{self.pattern}: cannot be written: {in_words(error)}") from error
