"""Output profiles: which encoder, pixel format, container options and streams an output gets, decided beforehand."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.error
import cv2
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext

from archivecolor.errors import FilmEncodeError
from archivecolor.film.info import MATRIX_CODES, MATRIX_NAMES, UNTAGGED, FilmInfo, Picture
from archivecolor.film.opening import in_words, open_film
from archivecolor.film.pixels import UnusablePixelFormatError, pixel_format
from archivecolor.film.streams import Converted, LeftOut, StreamPlan, lost_marks, plan_streams

# Extension -> (FFmpeg container, encoder by default). AVI and MPEG transport streams are not here: AVI cannot hold
# variable frame rate or a late start, and a transport stream shifts its clock.
CONTAINERS: Final = {
    ".mp4": ("mp4", "libx264"),
    ".m4v": ("mp4", "libx264"),
    ".mov": ("mov", "prores_ks"),
    ".mkv": ("matroska", "ffv1"),
    ".webm": ("webm", "libvpx-vp9"),
}
FRAME_EXTENSIONS: Final = (".dpx", ".tif", ".tiff", ".png")  # of image sequences
# Profile -> (encoder, extensions it is meant for, the first by default). An extension alone stands for the profile
# whose encoder is its default.
PROFILES: Final = {
    "access": ("libx264", (".mp4", ".m4v", ".mov", ".mkv")),
    "mezzanine": ("prores_ks", (".mov", ".mkv")),
    "preservation": ("ffv1", (".mkv",)),
    "hevc": ("libx265", (".mp4", ".m4v", ".mov", ".mkv")),
    "av1": ("libsvtav1", (".mp4", ".m4v", ".mkv", ".webm")),
}
_SHORT_NAMES: Final = {
    "h264": "libx264",
    "avc": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
    "dnxhr": "dnxhd",
}
_CRF: Final = {"libx264": 14, "libx265": 18, "libsvtav1": 22, "libvpx-vp9": 20}
_PRESET: Final = {"libx264": "faster", "libx265": "medium", "libsvtav1": "7"}
_X264_SUBME: Final = 7
"""With x264's preset of our choice. Weighing rate against distortion in B-frames too keeps colour much steadier, for a
fifth more time: on two clips the warping error of ab was 0.79 and 1.07 of the truth's own, 1.10 and 1.31 without."""
_X264_CHROMA: Final = -4
"""Colour is what these films are made for: a little finer than x264 would have it. The warping error that H.264 adds
to that of six clips fell by three tenths in the middle, for files 3 to 12 % larger."""
_ALWAYS_LOSSLESS: Final = {"ffv1", "ffvhuff", "huffyuv", "utvideo", "rawvideo", "v210"}
_TEN_BIT_BY_NATURE: Final = {"libx265", "libsvtav1", "hevc_nvenc", "av1_nvenc", "prores_ks", "prores_aw", "dnxhd"}
_EVEN_SIZES_ONLY: Final = {"libx264", "libx265", "h264_nvenc", "hevc_nvenc", "av1_nvenc", "libsvtav1"}
_CHROMA_NAMES: Final = {(1, 1): "420", (1, 0): "422", (0, 0): "444", (0, 1): "440", (2, 0): "411", (2, 2): "410"}
# Encoders that mark each picture as interlaced, with its field order.
_INTERLACING: Final = {"libx264", "ffv1", "prores_ks", "mpeg2video", "mpeg4", "dvvideo", "rawvideo", "v210"}
_AVX_512F: Final = 13  # CV_CPU_AVX_512F
_SEMI_PLANAR: Final = {"yuv420p10le": "p010le", "yuv420p": "nv12"}


@dataclass(frozen=True)
class OutputSettings:
    """What a user may ask of an output; None leaves the choice to the profile.

    ``profile`` is a key of `PROFILES`, by default the one that the file extension stands for. ``codec`` is a short
    name (h264, hevc, av1, vp9, ffv1, prores, dnxhd) or any FFmpeg encoder; ``container`` overrides the file extension
    (an extension such as ``.mkv``). ``keep_luma`` asks for the source's luma code values untouched, so that depth and
    range of the output must be the source's.
    """

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    container: str | None = None
    keep_luma: bool = False
    profile: str | None = None


@dataclass(frozen=True)
class OutputPlan:
    """An output, decided: everything `FilmWriter` needs beside the film itself.

    Planes to write are in ``pix_fmt`` (planar Y'CbCr, ``bit_depth`` bits, chroma of ``ceil(W / 2^log2_chroma[0])`` x
    ``ceil(H / 2^log2_chroma[1])``), range and ``matrix`` as given. ``encoder_pix_fmt`` may be the semi-planar twin.
    ``tag_*`` are the H.273 codes to write. ``interlaced`` asks for pictures marked as such. ``kept`` are source stream
    indices copied as packets.
    """

    format_name: str
    encoder: str
    encoder_options: dict[str, str]
    container_options: dict[str, str]
    pix_fmt: str
    encoder_pix_fmt: str
    bit_depth: int
    log2_chroma: tuple[int, int]
    full_range: bool
    matrix: str
    tag_matrix: int
    tag_primaries: int
    tag_transfer: int
    lossless: bool
    interlaced: bool = False
    kept: tuple[int, ...] = ()
    converted: tuple[Converted, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()


def default_extension(source: Path, profile: str | None = None) -> str:
    """Extension for an output whose name is not given: the source's own if the profile is kept well there."""
    meant_for = PROFILES[profile or "access"][1]
    suffix = source.suffix.lower()
    if suffix in meant_for:
        return suffix
    return ".mkv" if profile is None else meant_for[0]


def plan_output(info: FilmInfo, output: Path, settings: OutputSettings | None = None) -> OutputPlan:
    """Decide everything about an output before any work, trying the encoder and the container out in memory.

    Raises `FilmEncodeError` for settings that do not fit each other or the film, naming what would, and
    `FilmOpenError` for an HDR source.
    """
    settings = settings or OutputSettings()
    info.require_sdr()
    format_name, default_encoder = _container(output, settings)
    codec = _encoder(settings.codec or default_encoder, format_name)
    encoder = codec.name
    lossless = encoder in _ALWAYS_LOSSLESS or (encoder in ("libx264", "libx265") and settings.crf == 0)
    warnings: list[str] = []
    full_range = info.picture.full_range
    if full_range and format_name == "mov" and codec.canonical_name not in ("h264", "hevc", "av1"):
        if settings.keep_luma:
            raise FilmEncodeError(
                f"{output}: QuickTime cannot say that {encoder} is full range as the source is; write .mkv instead"
            )
        full_range = False
        warnings.append(f"the source is full range; {encoder} in QuickTime is written as limited range")
    pix_fmt = _pixel_format(info, codec, settings, lossless, warnings)
    if settings.keep_luma and not lossless:
        warnings.append(f"{encoder} is lossy: the source's luma is only nearly kept; --codec ffv1 with .mkv keeps it")
    chosen = pixel_format(pix_fmt)
    assert chosen.log2_chroma is not None
    supported = {fmt.name for fmt in codec.video_formats or []}
    encoder_pix_fmt = pix_fmt if not supported or pix_fmt in supported else _SEMI_PLANAR[pix_fmt]
    # DNxHR says BT.709 whatever it is told; a grey picture's luma is the same in every matrix.
    matrix = "bt709" if encoder == "dnxhd" else info.picture.matrix
    tagged = info.picture.tagged_matrix
    other = tagged != UNTAGGED and tagged in MATRIX_NAMES and MATRIX_NAMES[tagged] != matrix
    if other and info.picture.format.log2_chroma is not None:
        warnings.append(f"the source is in {MATRIX_NAMES[tagged]}, the output in {matrix}; greys are the same in both")
    if encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # its own log goes to stderr, past FFmpeg's: errors only
    if info.picture.interlaced and encoder not in _INTERLACING:
        raise FilmEncodeError(
            f"{output}: {encoder} cannot mark interlaced pictures as such; leave out --deinterlace off, or use "
            "--codec h264, ffv1 or prores"
        )
    streams = StreamPlan((), (), ())
    if not info.files:
        with open_film(info.path) as source:
            streams = plan_streams(info, source, format_name)
        warnings += lost_marks(info, streams, format_name)
    plan = OutputPlan(
        format_name=format_name,
        encoder=encoder,
        encoder_options=_options(encoder, settings, pix_fmt, lossless, info),
        container_options=_container_options(format_name, info.time_base),
        pix_fmt=pix_fmt,
        encoder_pix_fmt=encoder_pix_fmt,
        bit_depth=chosen.bit_depth,
        log2_chroma=chosen.log2_chroma,
        full_range=full_range,
        matrix=matrix,
        tag_matrix=MATRIX_CODES[matrix],
        tag_primaries=info.picture.tagged_primaries,
        tag_transfer=info.picture.tagged_transfer,
        interlaced=info.picture.interlaced,
        lossless=lossless,
        kept=streams.kept,
        converted=streams.converted,
        left_out=streams.left_out,
        warnings=tuple(warnings),
    )
    _try_encoder(info, plan, output)
    return plan


def _container(output: Path, settings: OutputSettings) -> tuple[str, str]:
    """FFmpeg's container and the encoder by default."""
    extension = (settings.container or output.suffix).lower()
    extension = extension if extension.startswith(".") else f".{extension}"
    if extension not in CONTAINERS:
        what = f"not as {extension!r}" if len(extension) > 1 else "the name has no extension"
        if extension in FRAME_EXTENSIONS:
            what = f"as frames they are with a number in the name, e.g. {output.with_suffix('')}/%06d{extension}"
        raise FilmEncodeError(f"{output}: films are written as {', '.join(CONTAINERS)}; {what}")
    format_name, encoder = CONTAINERS[extension]
    if settings.profile is None:
        return format_name, encoder
    if settings.profile not in PROFILES:
        raise FilmEncodeError(f"no profile {settings.profile!r}; choose one of {', '.join(PROFILES)}")
    encoder, extensions = PROFILES[settings.profile]
    if settings.codec is None and extension not in extensions:
        raise FilmEncodeError(f"{output}: the profile {settings.profile} is written as {' or '.join(extensions)}")
    return format_name, encoder


def _container_options(format_name: str, time_base: Fraction) -> dict[str, str]:
    """Muxer options. MP4 and QuickTime count late starts in ticks of the whole film, a millisecond unless told."""
    if format_name in ("mp4", "mov"):
        ticks = time_base.denominator
        movie_timescale = min(ticks * -(-48000 // ticks), (1 << 31) - 1)
        return {"movflags": "+faststart+write_colr", "movie_timescale": str(movie_timescale)}
    # Sound may begin a few milliseconds before zero (encoder priming). By default the muxer then moves every
    # stream; Matroska's block times are signed, so nothing has to move.
    return {"avoid_negative_ts": "disabled"}


def _fits(codec: av.Codec, format_name: str) -> bool:
    with av.open(io.BytesIO(), "w", format=format_name) as trial:
        return codec.name in trial.supported_codecs


def _encoder(name: str, format_name: str) -> av.Codec:
    try:
        codec = av.Codec(_SHORT_NAMES.get(name.lower(), name), "w")
    except UnknownCodecError as error:
        known = ", ".join(["h264", "hevc", "av1", "vp9", "ffv1", "prores", "dnxhd"])
        raise FilmEncodeError(f"no encoder {name!r} here; use {known} or another FFmpeg video encoder") from error
    if codec.type != "video":
        raise FilmEncodeError(f"{name!r} is not a video encoder")
    if not _fits(codec, format_name):
        usual = {ext for encoder, extensions in PROFILES.values() for ext in extensions if encoder == codec.name}
        others = [ext for ext, (fmt, _) in CONTAINERS.items() if ext in (usual or CONTAINERS) and _fits(codec, fmt)]
        remedy = f"write {' or '.join(others)} instead" if others else "choose another codec"
        raise FilmEncodeError(f"{codec.name} does not go into {format_name}; {remedy}")
    return codec


def planar_name(log2_chroma: tuple[int, int], bit_depth: int) -> str:
    """FFmpeg's name of planar Y'CbCr of this subsampling and depth, little-endian above 8 bits."""
    return f"yuv{_CHROMA_NAMES[log2_chroma]}p" + ("" if bit_depth == 8 else f"{bit_depth}le")


def _planar_formats(codec: av.Codec) -> list[str]:
    names = [fmt.name for fmt in codec.video_formats or []]
    if not names:  # rawvideo takes them all
        names = [planar_name(chroma, bits) for chroma in _CHROMA_NAMES for bits in (8, 9, 10, 12, 14, 16)]
    planar = [n for n in names if n.startswith("yuv4") and not n.endswith("be") and "msb" not in n]
    semi = [plain for plain, twin in _SEMI_PLANAR.items() if twin in names and plain not in planar]
    return planar + semi


def _pixel_format(
    info: FilmInfo, codec: av.Codec, settings: OutputSettings, lossless: bool, warnings: list[str]
) -> str:
    picture, encoder = info.picture, codec.name
    available = _planar_formats(codec)
    if not available:
        raise FilmEncodeError(f"{encoder} takes no planar Y'CbCr; choose another codec")
    if settings.pix_fmt is not None:
        try:
            asked = pixel_format(settings.pix_fmt)
        except (ValueError, UnusablePixelFormatError) as error:
            raise FilmEncodeError(f"{settings.pix_fmt!r} is no pixel format to write") from error
        if asked.name not in available:
            raise FilmEncodeError(f"{encoder} does not write {asked.name}; it takes {', '.join(available)}")
        if settings.keep_luma and asked.bit_depth != picture.bit_depth:
            raise FilmEncodeError(
                f"{asked.name} has {asked.bit_depth} bits but the source {picture.bit_depth}: its luma cannot be "
                "kept code value for code value; leave the pixel format out"
            )
        return asked.name
    depths = [picture.bit_depth] if lossless or settings.keep_luma else []
    if not settings.keep_luma:
        wide = picture.bit_depth > 8 and (lossless or encoder in _TEN_BIT_BY_NATURE)
        depths += [10, 8] if wide else [8, 10]
    source_chroma = picture.format.log2_chroma if lossless else None
    chromas = [source_chroma] if source_chroma in _CHROMA_NAMES else []
    width_odd, height_odd = picture.width_px % 2, picture.height_px % 2
    if (width_odd or height_odd) and encoder in _EVEN_SIZES_ONLY:
        chromas = [(0, 0)]
        if planar_name((0, 0), 8) in available:
            warnings.append(f"{picture.width_px}x{picture.height_px} is an odd size: written as 4:4:4 by {encoder}")
    for depth in depths:
        for chroma in [*chromas, (1, 1), (1, 0), (0, 0)]:
            if chroma is not None and (name := planar_name(chroma, depth)) in available:
                if depth < picture.bit_depth:
                    warnings.append(_depth_remark(picture.bit_depth, depth, available))
                return name
    raise FilmEncodeError(
        f"{encoder} does not write {picture.bit_depth} bits, so the source's luma cannot be kept code value for "
        "code value; use --codec ffv1 with .mkv"
    )


def _depth_remark(source_bits: int, bits: int, available: list[str]) -> str:
    keeps_ten = bits == 8 and "yuv420p10le" in available
    remedy = "--pix-fmt yuv420p10le keeps 10" if keeps_ten else "--profile preservation (.mkv) keeps all"
    return f"the source has {source_bits} bits, the output {bits}; {remedy}"


def _options(encoder: str, settings: OutputSettings, pix_fmt: str, lossless: bool, info: FilmInfo) -> dict[str, str]:
    options: dict[str, str] = {}
    nvenc = encoder.endswith("_nvenc")
    crf = settings.crf if settings.crf is not None else _CRF.get(encoder)
    if encoder == "libx264" and lossless:
        options["qp"] = "0"  # crf 0 is lossless at 8 bits only
    elif encoder == "libx265" and lossless:
        options["x265-params"] = "lossless=1:log-level=error"
    elif encoder in _CRF:
        options["crf"] = str(crf)
    elif nvenc:
        options.update(rc="vbr", cq=str(settings.crf if settings.crf is not None else 19), b="0")
    elif settings.crf is not None:
        raise FilmEncodeError(f"{encoder} has no crf; leave it out, or use --profile access")
    if encoder in _PRESET or nvenc:
        options["preset"] = settings.preset or _PRESET.get(encoder, "p5")
    elif settings.preset is not None:
        raise FilmEncodeError(f"{encoder} has no presets; leave it out, or use --profile access")
    if encoder == "libx265":
        options.setdefault("x265-params", "log-level=error")
    elif encoder == "libvpx-vp9":
        options.update({"row-mt": "1", "cpu-used": "2"})
    elif encoder == "ffv1":
        options.update(level="3", g="1", slicecrc="1", slices=_ffv1_slices(info.picture))
    elif encoder in ("prores_ks", "prores_aw"):
        options["profile"] = "4" if "444" in pix_fmt else "3"
        options["vendor"] = "apl0"
    elif encoder == "dnxhd":
        options["profile"] = {"yuv422p": "dnxhr_hq", "yuv422p10le": "dnxhr_hqx"}.get(pix_fmt, "dnxhr_444")
    own = []
    if encoder == "libx264" and cv2.checkHardwareSupport(_AVX_512F):
        own.append("asm=AVX2")  # with AVX-512 its macroblock tree reads past rows: each run comes out otherwise
    if encoder == "libx264":
        own.append(f"chroma-qp-offset={_X264_CHROMA}")
        if settings.preset is None:
            own.append(f"subme={_X264_SUBME}")
    if info.picture.interlaced:
        options.update(flags="+ildct+ilme", field_order=info.picture.field_order)
        if encoder == "libx264" and info.picture.field_order == "bb":
            own.append("bff=1")
    if own:
        options["x264-params"] = ":".join(own)
    return options


def _ffv1_slices(picture: Picture) -> str:
    """As many as make good use of threads; few in a small picture, where the encoder's own choice does not open."""
    if picture.width_px * picture.height_px >= 256 * 256:
        return "16"
    return "4" if min(picture.width_px, picture.height_px) > 1 else "1"


def configure(context: VideoCodecContext, info: FilmInfo, plan: OutputPlan) -> None:
    """Set an encoder up for a plan; before it is opened."""
    picture = info.picture
    context.width, context.height = picture.width_px, picture.height_px
    context.pix_fmt = plan.encoder_pix_fmt
    context.time_base = info.time_base
    context.framerate = info.average_rate or Fraction(25)
    if picture.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = picture.sample_aspect_ratio
    context.color_range = 2 if plan.full_range else 1
    context.colorspace = plan.tag_matrix
    context.color_primaries = plan.tag_primaries
    context.color_trc = plan.tag_transfer
    context.options = dict(plan.encoder_options)
    context.thread_type = "AUTO"
    if plan.format_name in ("mp4", "mov") and plan.encoder in ("libx265", "hevc_nvenc"):
        context.codec_tag = "hvc1"  # what QuickTime plays


_telling_errors: Final = threading.Lock()


@contextmanager
def _errors_told() -> Iterator[list[tuple[int, str, str]]]:
    """Collects this thread's errors of FFmpeg, by one thread at a time.

    Of two threads the second would take the first one's level for what it has to put back, and FFmpeg would go on
    calling Python from its own threads, which are waited for while Python is held.
    """
    with _telling_errors:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture() as logs:
                yield logs
        finally:
            av.logging.set_level(level)


def _try_encoder(info: FilmInfo, plan: OutputPlan, output: Path) -> None:
    context = av.CodecContext.create(plan.encoder, "w")
    assert isinstance(context, VideoCodecContext)
    try:
        with _errors_told() as logs:
            configure(context, info, plan)
            context.open()
    except (av.error.FFmpegError, ValueError) as error:
        words = "; ".join(dict.fromkeys(text.strip() for _, _, text in logs if text.strip())) or in_words(error)
        raise FilmEncodeError(f"{output}: {plan.encoder} does not start: {words}") from error
    unknown = sorted(set(context.options) & set(plan.encoder_options))
    if unknown:
        raise FilmEncodeError(f"{output}: {plan.encoder} has no option {', '.join(unknown)}")
