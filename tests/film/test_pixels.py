"""Luma out of decoded frames, whatever their layout."""

from __future__ import annotations

import av
import numpy as np
import pytest

from archivecolor.film.pixels import (
    UnusablePixelFormatError,
    chroma_deviation,
    luma_plane,
    pixel_format,
    rgb_to_luma,
)
from archivecolor.matrices import MATRICES
from tests.clips import luma_frame, picture

PLANAR = [
    "gray", "gray9le", "gray10le", "gray12le", "gray14le", "gray16le", "gray10be", "gray16be", "yuv420p", "yuvj420p",
    "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuv420p9le", "yuv420p10le", "yuv422p10be", "yuv420p12le",
    "yuv422p14le", "yuv444p16le", "yuva420p", "yuva444p10le",
]  # fmt: skip


@pytest.mark.parametrize("name", PLANAR)
def test_planar_luma_comes_out_code_value_for_code_value(name):
    bits = pixel_format(name).bit_depth
    luma = picture(3, 37, 21, bits)
    frame = luma_frame(luma, name)
    seen = luma_plane(frame, "bt709")
    assert seen.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert np.array_equal(seen, luma)


def test_planar_luma_is_a_view_that_keeps_the_frame_alive():
    frame = luma_frame(picture(0, 40, 30), "yuv420p")
    seen = luma_plane(frame, "bt709")
    frame_memory = np.frombuffer(frame.planes[0], np.uint8)
    assert np.shares_memory(seen, frame_memory)
    expected = seen.copy()
    del frame, frame_memory
    for _ in range(20):
        luma_frame(picture(9, 40, 30), "yuv420p")
    assert np.array_equal(seen, expected)


@pytest.mark.parametrize(
    ("planar", "other"),
    [
        ("yuv420p", "nv12"), ("yuv422p", "nv16"), ("yuv444p", "nv24"), ("yuv422p", "yuyv422"), ("yuv422p", "uyvy422"),
        ("yuv420p10le", "p010le"), ("yuv420p10le", "p010be"), ("yuv422p10le", "p210le"), ("yuv422p10le", "y210le"),
        ("yuv420p16le", "p016le"), ("yuv444p", "vuyx"), ("yuv444p10le", "xv30le"), ("yuv444p12le", "xv36le"),
    ],
)  # fmt: skip
def test_packed_and_semi_planar_layouts_hold_the_same_luma(planar, other):
    luma = picture(1, 48, 32, pixel_format(planar).bit_depth)
    frame = luma_frame(luma, planar).reformat(format=other)
    assert pixel_format(other).bit_depth == pixel_format(planar).bit_depth
    assert np.array_equal(luma_plane(frame, "bt709"), luma)


@pytest.mark.parametrize("name", ["rgb24", "bgr24", "rgba", "bgra", "argb", "0bgr", "gbrp"])
def test_grey_rgb_gives_exactly_its_own_value(name):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frame = av.VideoFrame.from_ndarray(np.repeat(grey[:, :, None], 3, axis=2), "rgb24").reformat(format=name)
    assert np.array_equal(luma_plane(frame, "smpte170m"), grey)
    assert chroma_deviation(frame) == 0


@pytest.mark.parametrize("matrix", sorted(MATRICES))
def test_rgb_luma_weights(matrix):
    kr, kb = MATRICES[matrix]
    rng = np.random.default_rng(1)
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        r, g, b = rng.integers(0, top + 1, (3, 20, 20)).astype(dtype)
        expected = kr * r.astype(float) + kb * b.astype(float) + (1 - kr - kb) * g.astype(float)
        # The fixed-point weights are within 2^-17 of the true ones.
        assert np.abs(rgb_to_luma(r, g, b, matrix) - expected).max() <= 0.5 + 3 * top / 2**17
        same = rgb_to_luma(r, r, r, matrix)
        assert np.array_equal(same, r) and same.dtype == dtype


def test_bottom_up_pictures_come_out_top_down():
    luma = picture(2, 32, 24)
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=32, height=24, format=av.VideoFormat("yuv420p"), time_base=av.rational.AVRational(1, 25)
    )
    graph.link_nodes(source, graph.add("vflip"), graph.add("buffersink")).configure()
    frame = luma_frame(luma, "yuv420p")
    frame.pts = 0
    graph.push(frame)
    flipped = graph.pull()
    assert flipped.planes[0].line_size < 0  # the filter only turns the stride around
    assert np.array_equal(luma_plane(flipped, "bt709"), luma[::-1])


@pytest.mark.parametrize("name", ["gbrpf32le", "grayf32le", "bayer_rggb8", "xyz12le", "cuda", "rgb4"])
def test_formats_without_integer_luma_are_refused(name):
    with pytest.raises(UnusablePixelFormatError, match=name):
        pixel_format(name)


@pytest.mark.parametrize("name", ["yuv420p", "yuv444p10le", "nv12", "p010le", "yuyv422"])
def test_chroma_deviation_is_in_8_bit_code_values(name):
    planar = {"nv12": "yuv420p", "p010le": "yuv420p10le", "yuyv422": "yuv422p"}.get(name, name)
    luma = picture(0, 64, 48, pixel_format(planar).bit_depth)
    assert chroma_deviation(luma_frame(luma, planar).reformat(format=name)) == 0
    assert chroma_deviation(luma_frame(luma, planar, neutral_chroma=False).reformat(format=name)) == pytest.approx(
        64, abs=1
    )


def test_untagged_gray_is_full_range_as_in_ffmpeg():
    white = av.VideoFrame.from_ndarray(np.full((8, 8), 255, np.uint8), "gray")
    assert luma_plane(white.reformat(format="yuv420p"), "bt709")[0, 0] == 235
    assert pixel_format("gray").full_range_untagged
    assert not pixel_format("yuv420p").full_range_untagged
