"""Make examples/before_after.png for the README: frames of the example film above the same frames colourised.

archivecolor colorize examples/camera_moves.mp4 -o demo/camera_moves_colour.mp4
python examples/make_before_after.py demo/camera_moves_colour.mp4 examples/before_after.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import cv2
import numpy as np

FRAMES = (60, 118, 175, 245)
WIDTH_PX = 320


def stills(film: Path) -> np.ndarray:
    """FRAMES of ``film`` side by side, BGR."""
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    height = WIDTH_PX * frames[0].shape[0] // frames[0].shape[1]
    return np.hstack([cv2.resize(frames[i], (WIDTH_PX, height), interpolation=cv2.INTER_AREA) for i in FRAMES])


def main(coloured: Path, output: Path) -> None:
    """Write the picture."""
    grey = Path(__file__).parent / "camera_moves.mp4"
    cv2.imwrite(str(output), np.vstack([stills(grey), stills(coloured)]), [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
