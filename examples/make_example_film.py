"""Make examples/camera_moves.mp4: a short black-and-white film with sound, from photographs that scikit-image ships.

The photographs are moved over as a rostrum camera would, made grey as panchromatic stock would see them, and worn:
grain, flicker, gate weave, vignette, dust and scratches. The sound is a synthesised waltz with a little crackle.

Photographs, all in the public domain or CC0 (see scikit-image's ``skimage/data/README.txt`` and docstrings):

* ``astronaut.png``: Eileen Collins, NASA Great Images database, public domain
* ``chelsea.png``: Chelsea the cat, by Stefan van der Walt, CC0
* ``coffee.png``: a cup of coffee, Pikolo Espresso Bar, by Rachel Michetti, CC0
* ``rocket.jpg``: launch of Falcon 9 with DSCOVR, SpaceX Photos, public domain

    pip install "archivecolor[examples]"
    python examples/make_example_film.py examples/camera_moves.mp4
"""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import skimage

WIDTH, HEIGHT, RATE = 480, 360, 18
SOUND_RATE = 44100
TITLE = "Camera moves"
# Photograph, seconds, and the camera's window (centre x, centre y, width as shares of the photograph), start to end.
SHOTS = [
    ("astronaut.png", 4.0, (0.50, 0.52, 0.98), (0.44, 0.27, 0.55)),
    ("chelsea.png", 3.5, (0.56, 0.50, 0.62), (0.50, 0.50, 0.88)),
    ("coffee.png", 3.5, (0.42, 0.50, 0.80), (0.62, 0.52, 0.66)),
    ("rocket.jpg", 3.5, (0.50, 0.66, 0.75), (0.50, 0.40, 0.95)),
]


def window(photo: np.ndarray, at: tuple[float, float, float]) -> np.ndarray:
    """The (HEIGHT, WIDTH, 3) view of ``photo`` through a window of the film's aspect."""
    rows, columns = photo.shape[:2]
    width = at[2] * min(columns, rows * WIDTH / HEIGHT)
    height = width * HEIGHT / WIDTH
    x = min(max(at[0] * columns, width / 2), columns - width / 2) - width / 2
    y = min(max(at[1] * rows, height / 2), rows - height / 2) - height / 2
    matrix = np.array([[width / WIDTH, 0, x], [0, height / HEIGHT, y]])
    return cv2.warpAffine(photo, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)


def shot(name: str, seconds: float, start: tuple[float, ...], end: tuple[float, ...]) -> list[np.ndarray]:
    """Grey frames, float 0..1, of one camera move with a slow start and stop."""
    rgb = cv2.imread(str(Path(skimage.__file__).parent / "data" / name))[:, :, ::-1].astype(np.float32) / 255
    grey = []
    count = round(seconds * RATE)
    for i in range(count):
        eased = 0.5 - 0.5 * math.cos(math.pi * i / (count - 1))
        at = tuple(a + (b - a) * eased for a, b in zip(start, end, strict=True))
        grey.append(window(rgb, at) @ np.array([0.25, 0.55, 0.20], dtype=np.float32))  # panchromatic stock
    return grey


def wear(frames: list[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
    """Old-film look; uint8 luma, limited range."""
    yy, xx = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    vignette = 1 - 0.28 * (xx**2 + yy**2) / 2
    scratch_x, scratch_left = 0.0, 0
    worn = []
    for frame in frames:
        weave = np.array([[1, 0, random.normal(0, 0.35)], [0, 1, random.normal(0, 0.25)]])
        picture = cv2.warpAffine(frame, weave, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        picture = cv2.GaussianBlur(picture, (0, 0), 0.7) * vignette * (1 + random.normal(0, 0.012))
        grain = cv2.GaussianBlur(random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 0.8)
        picture = 0.04 + 0.93 * picture + 0.022 * grain
        if scratch_left == 0 and random.random() < 0.02:
            scratch_x, scratch_left = random.uniform(0.1, 0.9) * WIDTH, int(random.integers(4, 20))
        if scratch_left:
            scratch_left -= 1
            scratch_x += random.normal(0, 0.6)
            picture[:, min(max(int(scratch_x), 0), WIDTH - 1)] += 0.12
        for _ in range(random.poisson(0.5)):
            centre = (int(random.integers(WIDTH)), int(random.integers(HEIGHT)))
            cv2.circle(picture, centre, int(random.integers(1, 3)), float(random.choice([0.1, 0.9])), -1, cv2.LINE_AA)
        worn.append((16 + 219 * picture.clip(0, 1)).round().astype(np.uint8))
    return worn


def waltz(seconds: float, random: np.random.Generator) -> np.ndarray:
    """Mono sound, float32: plucked notes in three-four time over the crackle of an old track."""
    sound = np.zeros(round(seconds * SOUND_RATE), np.float32)
    beat_s = 0.42
    bass, chords = [48, 43, 45, 43], [(60, 64, 67), (59, 62, 67), (60, 64, 69), (59, 62, 65)]
    for beat in range(int(seconds / beat_s)):
        bar, third = divmod(beat, 3)
        notes = (bass[bar % 4],) if third == 0 else chords[bar % 4]
        start = round(beat * beat_s * SOUND_RATE)
        t = np.arange(min(SOUND_RATE, sound.size - start)) / SOUND_RATE
        for note in notes:
            hertz = 440 * 2 ** ((note - 69) / 12)
            tone = sum(np.sin(2 * np.pi * hertz * k * t) / k**2 for k in (1, 2, 3, 4))
            sound[start : start + t.size] += (0.10 * np.exp(-4 * t) * tone).astype(np.float32)
    clicks = random.random(sound.size) < 12 / SOUND_RATE
    crackle = np.convolve(clicks * random.normal(0, 0.12, sound.size), np.exp(-np.arange(60) / 8), "same")
    return (sound + crackle + random.normal(0, 0.004, sound.size)).astype(np.float32).clip(-1, 1)


def main(output: Path) -> None:
    """Write the film."""
    random = np.random.default_rng(1927)
    frames = wear([frame for item in SHOTS for frame in shot(*item)], random)
    sound = waltz(len(frames) / RATE, random)

    with av.open(str(output), "w", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = TITLE
        video = container.add_stream("libx264", rate=RATE, options={"crf": "22", "preset": "slow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.time_base = Fraction(1, RATE)
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        neutral = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
        for i, luma in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.vstack([luma, neutral]), format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        block.rate, block.pts, block.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
