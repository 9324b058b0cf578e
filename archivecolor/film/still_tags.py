"""What a still's file says beside its samples: resolution, colour profile, EXIF, IPTC, XMP; read, and written again."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from archivecolor.film.icc import colour_space, rgb_profile

# IPTC NewsCodes, digital source type: a composite of a captured picture and of what a trained model made.
DIGITAL_SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_Base, _IFD = ExifTags.Base, ExifTags.IFD
_XMP_TAG, _IPTC_TAG, _ICC_TAG, _PHOTOSHOP_IPTC = 700, 33723, 34675, 0x0404
_TRANSPOSING: Final = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_CM_AN_INCH: Final = 2.54
# Descriptive EXIF and TIFF tags; every other one is about how samples were stored.
_DESCRIPTIVE: Final = (
    _Base.DocumentName, _Base.ImageDescription, _Base.Make, _Base.Model, _Base.PageName, _Base.Software,
    _Base.DateTime, _Base.Artist, _Base.HostComputer, _Base.Copyright,
    _Base.XPTitle, _Base.XPComment, _Base.XPAuthor, _Base.XPKeywords, _Base.XPSubject,
)  # fmt: skip
_ABOUT_THE_CODING: Final = (
    _Base.ExifImageWidth, _Base.ExifImageHeight, _Base.ColorSpace, _Base.ComponentsConfiguration,
    _Base.CompressedBitsPerPixel, _Base.MakerNote, _Base.ExifInteroperabilityOffset,
)  # fmt: skip
_JPEG_PAYLOAD: Final = 65533
_XMP_IN_JPEG: Final = b"http://ns.adobe.com/xap/1.0/\0"
_DESCRIPTION: Final = (
    '<rdf:Description xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/>'
)
_PACKET: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    f'{_DESCRIPTION}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
_TIFF_STRIP_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class StillTags:
    """What is carried from one still to another, for an upright R'G'B' picture.

    ``dpi`` is horizontal and vertical; ``exif`` holds descriptive tags by number, the EXIF and GPS directories as
    mappings of their own; ``iptc`` are IIM records. ``warnings`` says what of the source cannot be carried.
    """

    dpi: tuple[float, float] | None = None
    icc_profile: bytes | None = None
    exif: Mapping[int, Any] = field(default_factory=dict)
    iptc: bytes | None = None
    xmp: bytes = _PACKET.encode()
    warnings: tuple[str, ...] = ()


def read_tags(path: Path) -> StillTags:
    """What the PNG, JPEG or TIFF ``path`` says of itself, with the digital source type put in; samples are not decoded.

    Tags that are damaged are left out, with a warning: a picture is worth more than its description.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic[:2] == b"\xff\xd8":
                return _from_image(path, JpegImageFile(file))
            if magic == b"\x89PNG":
                return _from_image(path, PngImageFile(file))
            if magic[:2] in (b"II", b"MM"):
                exif = Image.Exif()
                exif.load_from_fp(file)
                return _tags(path, exif, exif.get(_ICC_TAG), exif.get(_XMP_TAG), exif.get(_IPTC_TAG), _tiff_dpi(exif))
    except Exception as error:  # whatever Pillow's parsers make of a damaged header
        return StillTags(warnings=(f"{path.name}: its metadata cannot be read ({error}) and is left out",))
    return StillTags()


def _from_image(path: Path, image: JpegImageFile | PngImageFile) -> StillTags:
    info = image.info
    exif = image.getexif() if "exif" in info else Image.Exif()
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
    iptc = info.get("photoshop", {}).get(_PHOTOSHOP_IPTC)
    return _tags(path, exif, info.get("icc_profile"), xmp, iptc, info.get("dpi"))


def _tags(path: Path, exif: Image.Exif, icc: Any, xmp: Any, iptc: Any, dpi: Any) -> StillTags:
    warnings: list[str] = []
    profile = None if icc is None else bytes(icc)
    if profile is not None and (kind := colour_space(profile)) != "RGB":
        profile = rgb_profile(profile) if kind == "GRAY" else None
        if profile is None:
            warnings.append(f"{path.name}: its {kind} ICC profile does not fit an RGB picture and is left out")
    if dpi is not None:
        swapped = exif.get(_Base.Orientation) in _TRANSPOSING
        dpi = (float(dpi[1]), float(dpi[0])) if swapped else (float(dpi[0]), float(dpi[1]))
        if not all(0 < value < 1e6 for value in dpi):
            dpi = None
    packet = None if xmp is None else _with_source_type(xmp if isinstance(xmp, str) else bytes(xmp))
    if xmp is not None and packet is None:
        warnings.append(f"{path.name}: its XMP is damaged and is left out")
    return StillTags(
        dpi=dpi,
        icc_profile=profile,
        exif=_descriptive(exif),
        iptc=bytes(iptc) if isinstance(iptc, bytes) else None,
        xmp=packet or _PACKET.encode(),
        warnings=tuple(warnings),
    )


def _tiff_dpi(exif: Image.Exif) -> tuple[float, float] | None:
    unit = exif.get(_Base.ResolutionUnit, 2)
    across, down = exif.get(_Base.XResolution), exif.get(_Base.YResolution)
    if across is None or down is None or unit not in (2, 3):
        return None
    factor = 1.0 if unit == 2 else _CM_AN_INCH
    return float(across) * factor, float(down) * factor


def _descriptive(exif: Image.Exif) -> dict[int, Any]:
    tags: dict[int, Any] = {int(tag): exif[tag] for tag in _DESCRIPTIVE if tag in exif}
    for directory in (_IFD.Exif, _IFD.GPSInfo):
        entries = exif.get_ifd(directory)
        unfit = _ABOUT_THE_CODING if directory == _IFD.Exif else ()
        kept = {tag: value for tag, value in entries.items() if tag not in unfit}
        if kept:
            tags[int(directory)] = kept
    return tags


def _with_source_type(xmp: bytes | str) -> bytes | None:
    """An XMP packet that names the digital source type, of a picture that is upright; None where it is no XML."""
    try:
        text = xmp if isinstance(xmp, str) else xmp.rstrip(b"\0").decode("utf-8-sig")
        text = re.sub(r'\s[\w.-]+:DigitalSourceType\s*=\s*("[^"]*"|\'[^\']*\')', "", text)
        text = re.sub(r"(?s)<([\w.-]+:DigitalSourceType)\b[^>]*(/>|>.*?</\1\s*>)", "", text)
        text = re.sub(r"(tiff:Orientation\s*=\s*[\"']|<tiff:Orientation>\s*)[2-8]", r"\g<1>1", text)
        text, count = re.subn(r"(</[\w.-]+:RDF\s*>)", lambda end: _DESCRIPTION + end[1], text, count=1)
        if not count:
            return None
        ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError):
        return None
    return text.encode()


def exif_block(tags: StillTags) -> bytes:
    """EXIF as JPEG and PNG hold it, without the leading ``Exif``; empty where there is nothing to say."""
    if not tags.exif:
        return b""
    exif = Image.Exif()
    for tag, value in tags.exif.items():
        exif[tag] = value
    return exif.tobytes()[6:]


def tagged_jpeg(jpeg: bytes, tags: StillTags) -> bytes:
    """``jpeg`` with its tags as segments behind the JFIF header."""
    head = bytearray(jpeg[:20])
    if head[2:4] != b"\xff\xe0" or head[6:11] != b"JFIF\0":
        raise ValueError("the encoder gave no JFIF header")
    if tags.dpi is not None:
        head[13:18] = struct.pack(">BHH", 1, *(min(65535, round(value)) for value in tags.dpi))
    return bytes(head) + b"".join(_segment(kind, body) for kind, body in _segments(tags)) + jpeg[20:]


def _segments(tags: StillTags) -> Iterator[tuple[int, bytes]]:
    exif = exif_block(tags)
    if exif and len(exif) + 6 <= _JPEG_PAYLOAD:
        yield 0xE1, b"Exif\0\0" + exif
    xmp = tags.xmp if len(tags.xmp) + len(_XMP_IN_JPEG) <= _JPEG_PAYLOAD else _PACKET.encode()
    yield 0xE1, _XMP_IN_JPEG + xmp
    if tags.icc_profile is not None:
        step = _JPEG_PAYLOAD - 14
        parts = [tags.icc_profile[at : at + step] for at in range(0, len(tags.icc_profile), step)]
        for number, part in enumerate(parts, 1):
            yield 0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part
    if tags.iptc is not None and len(tags.iptc) + 28 <= _JPEG_PAYLOAD:
        header = b"Photoshop 3.0\0" + b"8BIM" + struct.pack(">HHL", _PHOTOSHOP_IPTC, 0, len(tags.iptc))
        yield 0xED, header + tags.iptc + b"\0" * (len(tags.iptc) % 2)


def _segment(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body


def tagged_png(png: bytes, tags: StillTags) -> bytes:
    """``png`` with its tags as chunks behind the first one (IHDR)."""
    chunks = b""
    if tags.icc_profile is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(tags.icc_profile))
    if tags.dpi is not None:
        per_metre = (round(value * 100 / _CM_AN_INCH) for value in tags.dpi)
        chunks += _chunk(b"pHYs", struct.pack(">LLB", *per_metre, 1))
    if exif := exif_block(tags):
        chunks += _chunk(b"eXIf", exif)
    chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + tags.xmp)
    return png[:33] + chunks + png[33:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def tagged_tiff(rgb: npt.NDArray[Any], tags: StillTags) -> bytes:
    """A TIFF of R'G'B', (H, W, 3) uint8 or uint16, deflate with horizontal differences, with its tags."""
    height, width, _ = rgb.shape
    little = rgb.astype(rgb.dtype.newbyteorder("<"), order="C")
    little[:, 1:] -= rgb[:, :-1]  # modulo 2^8 or 2^16, as the format has it
    rows = max(1, _TIFF_STRIP_BYTES // little[0].nbytes)
    strips = [zlib.compress(little[top : top + rows].tobytes(), 6) for top in range(0, height, rows)]
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    values: dict[int, Any] = {
        _Base.ImageWidth: width,
        _Base.ImageLength: height,
        _Base.BitsPerSample: (rgb.dtype.itemsize * 8,) * 3,
        _Base.Compression: 8,
        _Base.PhotometricInterpretation: 2,
        _Base.Orientation: 1,
        _Base.SamplesPerPixel: 3,
        _Base.RowsPerStrip: rows,
        _Base.PlanarConfiguration: 1,
        _Base.Predictor: 2,
        # counted from the end of the directory, to which Pillow adds them
        _Base.StripOffsets: tuple(int(offset) for offset in np.cumsum([0, *map(len, strips[:-1])])),
        _Base.StripByteCounts: tuple(map(len, strips)),
        _XMP_TAG: tags.xmp,
        **tags.exif,
    }
    if tags.dpi is not None:
        values |= {_Base.XResolution: tags.dpi[0], _Base.YResolution: tags.dpi[1], _Base.ResolutionUnit: 2}
    ifd.tagtype |= {_XMP_TAG: 1, _ICC_TAG: 7, _IPTC_TAG: 7}
    if tags.icc_profile is not None:
        values[_ICC_TAG] = tags.icc_profile
    if tags.iptc is not None:
        values[_IPTC_TAG] = tags.iptc
    for tag, value in values.items():
        ifd[int(tag)] = value
    file = io.BytesIO()
    ifd.save(file)
    file.write(b"".join(strips))
    return file.getvalue()
