"""A process that finds motion for its parent: glimpses come in at its stdin, the links between them go out at stdout.

It imports no torch, and ends when its stdin does: with its parent, however that ends.
"""

from __future__ import annotations

import os
import pickle
import sys
from contextlib import suppress

import cv2

from archivecolor.colorize.motion import find_links
from archivecolor.colorize.signals import ignore_parents_signals


def serve() -> None:
    """Answer the parent until it is gone."""
    ignore_parents_signals()
    cv2.setNumThreads(1)
    answers_fd = os.dup(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what a library prints is no answer
    with suppress(EOFError, OSError, pickle.UnpicklingError), os.fdopen(answers_fd, "wb") as answers:
        while True:
            before, frames = pickle.load(sys.stdin.buffer)
            pickle.dump(find_links(before, frames), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
