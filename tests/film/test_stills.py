"""Stills in and out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from archivecolor.errors import FilmEncodeError, FilmOpenError
from archivecolor.film import is_still, read_still, write_still
from tests.clips import picture


def colour(width=61, height=43, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(5).integers(0, top + 1, (height, width, 3)).astype(dtype)


@pytest.mark.parametrize("name", ["ä ö 映画.png", "a.TIFF", "b.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_stills_come_back_channel_by_channel(tmp_path, name, dtype):
    rgb = colour(dtype=dtype)
    write_still(tmp_path / name, rgb)
    raw = np.fromfile(tmp_path / name, np.uint8)
    seen = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    assert seen.dtype == dtype and np.array_equal(seen[:, :, ::-1], rgb)
    still = read_still(tmp_path / name)
    assert still.luma.shape == (43, 61) and still.luma.dtype == dtype and not still.was_neutral
    expected = rgb.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(still.luma - expected).max() <= 0.5 + 3 * np.iinfo(dtype).max / 2**17


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_stills_keep_every_value(tmp_path, channels, bits):
    grey = picture(0, 50, 40, bits, full_range=True)
    stored = grey if channels == 1 else np.repeat(grey[:, :, None], 3, axis=2)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", stored)[1].tobytes())
    still = read_still(tmp_path / "a.png")
    assert still.bit_depth == bits and still.was_neutral and np.array_equal(still.luma, grey)


def test_jpeg_is_4_4_4_and_close(tmp_path):
    y, x = np.mgrid[0:64, 0:80]
    rgb = np.stack([x * 3, y * 3, 255 - x * 2 - y], axis=2).clip(0, 255).astype(np.uint8)
    write_still(tmp_path / "a.part", rgb, ".jpg")
    raw = (tmp_path / "a.part").read_bytes()
    start = raw.index(b"\xff\xc0")  # frame header: three components, each sampled 1x1
    assert [raw[start + 11 + 3 * n] for n in range(3)] == [0x11] * 3
    seen = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.abs(seen.astype(int) - rgb).mean() < 2
    write_still(tmp_path / "b.jpg", rgb.astype(np.uint16) * 257)
    assert (tmp_path / "b.jpg").read_bytes() == raw


def test_exif_orientation_is_followed(tmp_path):
    grey = np.zeros((20, 30), np.uint8)
    grey[:5, :5] = 255
    raw = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"  # orientation 6: turn clockwise to show
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + tiff
    (tmp_path / "a.jpg").write_bytes(raw[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + raw[2:])
    luma = read_still(tmp_path / "a.jpg").luma
    assert luma.shape == (30, 20) and luma[:4, -4:].min() > 200 and luma[:4, :4].max() < 50


def test_alpha_is_noticed_or_left_out(tmp_path):
    rgba = np.dstack([colour(), np.full((43, 61), 7, np.uint8)])
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", rgba)[1].tobytes())
    assert read_still(tmp_path / "a.png").luma.shape == (43, 61)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_broken_stills_are_one_clear_line(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_still(path, colour(400, 300))
    whole = path.read_bytes()
    for content in (b"", b"no picture at all", whole[: len(whole) // 2], whole[:20]):
        path.write_bytes(content)
        with pytest.raises(FilmOpenError) as error:
            read_still(path)
        assert path.name in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(FilmOpenError, match="no such file"):
        read_still(tmp_path / f"none{suffix}")
    with pytest.raises(FilmOpenError, match="folder"):
        read_still(tmp_path)


def test_what_cannot_be_written_is_one_clear_line(tmp_path):
    with pytest.raises(FilmEncodeError, match=r"\.png"):
        write_still(tmp_path / "a.gif", colour())
    with pytest.raises(FilmEncodeError, match=r"none/a\.png"):
        write_still(tmp_path / "none" / "a.png", colour())
    with pytest.raises(ValueError, match="float64"):
        write_still(tmp_path / "a.png", colour() / 255)


def test_is_still(tmp_path):
    assert is_still(tmp_path / "A.TIF") and is_still(tmp_path / "b.jpeg") and not is_still(tmp_path / "c.mp4")
