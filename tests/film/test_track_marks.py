"""Languages and roles of tracks: kept, or said to be lost before the work begins."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from archivecolor.colorize.engine import Engine
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.config import ColorizeConfig
from archivecolor.film import OutputSettings, plan_output, probe
from archivecolor.film.track_marks import is_lost, lost_roles, name_in, roles_of


@pytest.mark.parametrize(
    ("container", "lost"),
    [("mp4", {"de", "de-CH"}), ("mov", {"de", "de-CH", "tlh"}), ("matroska", set())],
)
def test_what_a_container_cannot_name(container: str, lost: set[str]) -> None:
    languages = ("eng", "deu", "ger", "fre", "cze", "tlh", "de", "de-CH", "und", None)
    assert {language for language in languages if is_lost(container, language)} == lost


def test_quicktimes_own_names() -> None:
    assert [name_in("mov", language) for language in ("deu", "swe", "eng")] == ["ger", "sve", "eng"]
    assert name_in("mp4", "deu") == "deu"


@pytest.mark.parametrize(
    ("container", "kept"),
    [
        ("mp4", {"forced", "hearing_impaired", "visual_impaired", "comment", "dub"}),
        ("mov", set()),
        ("matroska", {"forced", "hearing_impaired", "visual_impaired", "comment", "dub", "original"}),
        ("webm", {"forced"}),
    ],
)
def test_what_a_container_cannot_mark(container: str, kept: set[str]) -> None:
    roles = {"forced", "hearing_impaired", "visual_impaired", "comment", "dub", "original", "lyrics"}
    assert set(lost_roles(container, roles)) == roles - kept


def test_mp4s_one_word_for_two_roles_will_do() -> None:
    assert lost_roles("mp4", ["captions", "descriptions"]) == []


@pytest.fixture
def swiss(tmp_path: Path) -> Path:
    """A film with sound in Swiss German, for the blind, and in English."""
    path = tmp_path / "swiss.mkv"
    with av.open(str(path), "w") as output:
        picture = output.add_stream("ffv1", rate=25, width=32, height=32, pix_fmt="gray")
        tracks = [output.add_stream("pcm_s16le", rate=8000) for _ in range(2)]
        for track, language in zip(tracks, ("de-CH", "eng"), strict=True):
            track.metadata["language"] = language
        tracks[0].disposition = Disposition.visual_impaired
        for n in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32), 20 * n, np.uint8), format="gray")
            frame.pts = n
            output.mux(picture.encode(frame))
        output.mux(picture.encode())
        for track in tracks:
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
            sound.sample_rate, sound.pts = 8000, 0
            output.mux(track.encode(sound))
    return path


@pytest.mark.parametrize(("extension", "said"), [(".mp4", 1), (".mov", 1), (".mkv", 0)])
def test_it_is_said_in_the_plan(swiss: Path, extension: str, said: int) -> None:
    plan = plan_output(probe(swiss), swiss.with_name(f"out{extension}"), OutputSettings())
    about = [warning for warning in plan.warnings if "language" in warning]
    assert len(about) == said and all("'de-CH'" in warning and ".mkv" in warning for warning in about)


@pytest.mark.parametrize(("extension", "said"), [(".mp4", 0), (".mov", 1), (".mkv", 0)])
def test_a_role_is_kept_or_said_to_be_lost(swiss: Path, extension: str, said: int, tiny_weights: Path) -> None:
    info, output = probe(swiss), swiss.with_name(f"out{extension}")
    assert [stream.roles for stream in info.streams] == [(), ("visual_impaired",), ()]
    plan = plan_output(info, output, OutputSettings())
    about = [warning for warning in plan.warnings if "visual impaired" in warning]
    assert len(about) == said and all("track 1" in warning and ".mkv" in warning for warning in about)
    config = ColorizeConfig(weights=str(tiny_weights), device="cpu", render_size_px=128)
    colorize_film(swiss, output, Engine(config), config)
    with av.open(str(output)) as made:
        assert roles_of(made.streams.audio[0]) == (() if said else ("visual_impaired",))
