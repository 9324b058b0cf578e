"""What a still says beside its samples comes along, and it says what it is."""

from __future__ import annotations

import io
import struct
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from archivecolor.film.still_tags import DIGITAL_SOURCE_TYPE, read_tags
from archivecolor.film.stills import write_still

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="shelf 7" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" '
    b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/negativeFilm"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
OUTPUTS = [("a.jpg", np.uint8), ("a.png", np.uint8), ("a.png", np.uint16), ("a.tif", np.uint8), ("a.tif", np.uint16)]


def grey_profile(gamma: float) -> bytes:
    curve = b"curv" + struct.pack(">LLH", 0, 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ " + struct.pack(">Llll", 0, 63190, 65536, 54061)
    head = bytearray(SRGB[:128])
    head[:4], head[16:20] = struct.pack(">L", 156 + 36), b"GRAY"
    return bytes(head) + struct.pack(">L4sLL4sLL", 2, b"kTRC", 156, 16, b"wtpt", 172, 20) + curve + white


def source(path, icc=SRGB):
    exif = Image.Exif()
    exif[270], exif[33432], exif[274] = "Hafen, 1931", "(c) Archiv", 6
    exif.get_ifd(34665).update({36867: "1931:01:02 03:04:05", 40962: 60})
    exif.get_ifd(34853).update({1: "N", 2: (53.0, 32.0, 5.5)})
    grey = Image.fromarray(np.full((40, 60), 90, np.uint8))
    picture = grey if icc[16:20] == b"GRAY" else grey.convert("RGB")
    more = {"xmp": XMP} if path.suffix == ".jpg" else {}
    picture.save(path, exif=exif, icc_profile=icc, dpi=(300, 600), **more)
    return path


def written(path, dtype, tags):
    rgb = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (70, 50, 3)).astype(dtype)
    before = rgb.copy()
    write_still(path, rgb, tags=tags)
    assert np.array_equal(rgb, before)
    seen = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:, :, ::-1]
    assert path.suffix == ".jpg" or (seen.dtype == dtype and np.array_equal(seen, rgb))
    return read_tags(path)


@pytest.mark.parametrize(("name", "dtype"), OUTPUTS)
def test_resolution_profile_and_descriptions_come_along(tmp_path, name, dtype):
    tags = read_tags(source(tmp_path / "source.jpg"))
    assert not tags.warnings and 40962 not in tags.exif[34665] and 274 not in tags.exif
    back = written(tmp_path / name, dtype, tags)
    assert back.dpi == pytest.approx((600, 300), abs=0.01)  # turned upright
    assert back.icc_profile == SRGB
    assert back.exif == tags.exif and back.exif[270] == "Hafen, 1931"
    assert back.exif[34853][2] == (53.0, 32.0, 5.5)
    root = ElementTree.fromstring(back.xmp)
    said = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("DigitalSourceType")]
    assert said == [DIGITAL_SOURCE_TYPE] and b"shelf 7" in back.xmp and b'Orientation="1"' in back.xmp


@pytest.mark.parametrize(("name", "dtype"), OUTPUTS)
def test_a_still_without_tags_says_what_it_is(tmp_path, name, dtype):
    back = written(tmp_path / name, dtype, None)
    assert DIGITAL_SOURCE_TYPE.encode() in back.xmp and back.dpi is None and not back.exif


def test_a_grey_profile_becomes_an_rgb_one_of_the_same_tones(tmp_path):
    tags = read_tags(source(tmp_path / "a.tif", icc=grey_profile(1.8)))
    assert not tags.warnings and tags.icc_profile is not None
    written(tmp_path / "b.png", np.uint8, tags)
    profile = Image.open(tmp_path / "b.png").info["icc_profile"]
    to_lab = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    ramp = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2))
    lab = np.asarray(ImageCms.applyTransform(ramp, to_lab))[0].astype(float)
    Y = (np.arange(256) / 255) ** 1.8
    expected = np.where(Y > 216 / 24389, 116 * np.cbrt(Y) - 16, Y * 24389 / 27)
    assert np.abs(lab[:, 0] / 255 * 100 - expected).max() < 1
    assert np.abs(lab[:, 1:].astype(np.uint8).astype(np.int8)).max() <= 1


def test_a_profile_that_cannot_be_carried_is_said(tmp_path):
    cmyk = SRGB[:16] + b"CMYK" + SRGB[20:]
    tags = read_tags(source(tmp_path / "a.jpg", icc=cmyk))
    assert tags.icc_profile is None and "CMYK" in tags.warnings[0]


@pytest.mark.parametrize("xmp", [b"\xff\xfe broken", b"<x>", XMP + b"<"])
def test_damaged_xmp_gives_way_to_a_new_one(tmp_path, xmp):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg", xmp=xmp)
    tags = read_tags(tmp_path / "a.jpg")
    assert "XMP" in tags.warnings[0] and DIGITAL_SOURCE_TYPE.encode() in tags.xmp


def test_large_profiles_and_packets_fit_into_jpeg(tmp_path):
    profile = SRGB[:128] + SRGB[128:] + bytes(200_000)
    tags = read_tags(source(tmp_path / "a.tif", icc=profile))
    big = XMP.replace(b"shelf 7", b"x" * 70_000)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b.tif", tiffinfo={700: big})
    assert written(tmp_path / "c.jpg", np.uint8, tags).icc_profile == profile
    back = written(tmp_path / "d.jpg", np.uint8, read_tags(tmp_path / "b.tif"))
    assert DIGITAL_SOURCE_TYPE.encode() in back.xmp and not back.warnings


def test_broken_metadata_does_not_stop_a_still(tmp_path):
    raw = bytearray(source(tmp_path / "a.jpg").read_bytes())
    at = raw.index(b"Exif\0\0")
    raw[at + 6 : at + 40] = b"\xff" * 34
    (tmp_path / "a.jpg").write_bytes(raw)
    assert DIGITAL_SOURCE_TYPE.encode() in read_tags(tmp_path / "a.jpg").xmp
