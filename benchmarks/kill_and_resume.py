"""Kill ``archivecolor colorize`` at random moments, run it again, and hold the film against an undisturbed run's.

    python benchmarks/kill_and_resume.py --kills 50

Each round starts the command, sends SIGKILL at a random moment, starts it again to the end, and compares frames, times,
sound and every plane of every frame. Segments that were journalled before the kill must still be there, byte for byte
and with their time of change, when the rerun begins to work on others.

The moment lies a random time behind a random segment, from before the first to the joining of the film; in every fourth
round it is a random time after the start. A round in which the command has ended before does not count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av

ROUNDS_A_KILL = 10


def command(source: Path, output: Path, arguments: argparse.Namespace) -> list[str]:
    settings = ["--segment-frames", str(arguments.segment_frames), "--json", *arguments.option]
    return [sys.executable, "-m", "archivecolor", "colorize", str(source), "-o", str(output), *settings]


def content(path: Path) -> tuple[list[Any], list[str], list[Any]]:
    """Times of all frames, a hash of each, and time and hash of each packet of sound."""
    times, pictures, sound = [], [], []
    with av.open(str(path)) as film:
        for packet in film.demux():
            if packet.stream.type == "video":
                for frame in packet.decode():
                    times.append(frame.pts)
                    pictures.append(hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest())
            elif packet.size:
                sound.append((packet.pts, hashlib.sha256(bytes(packet)).hexdigest()))
    return times, pictures, sound


def journalled(folder: Path) -> tuple[dict[str, int], int]:
    """Files of the segments that the journals have, and when each was written; and how many frames they hold."""
    found, frames = {}, 0
    for journal in folder.glob(".*.work/part-*/journal.jsonl"):
        for line in journal.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                segment = journal.parent / json.loads(line)["name"]
                if segment.exists():  # not when the kill struck while a finished film's work was being removed
                    files = segment.iterdir() if segment.is_dir() else [segment]
                    found.update({str(file): file.stat().st_mtime_ns for file in files})
                    frames += json.loads(line)["frames"]
    return found, frames


def lines(folder: Path) -> int:
    """How many segments were journalled so far."""
    try:
        return sum(path.read_bytes().count(b"\n") for path in folder.glob(".*.work/part-*/journal.jsonl"))
    except FileNotFoundError:  # the film is whole, and the work being removed
        return 0


def longest_s(seconds: float) -> float:
    """How long a run may take of which an undisturbed one took ``seconds``."""
    return 60 + 10 * seconds


def kill(run: list[str], folder: Path, segments: int, after_s: float, seconds: float) -> str | None:
    """Start ``run`` and kill it ``after_s`` behind so many segments; says when, None where it had ended by then."""
    started = time.perf_counter()
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and lines(folder) < segments:
        time.sleep(0.005)
        if time.perf_counter() - started > longest_s(seconds):
            process.kill()
            raise SystemExit(f"the run did not get behind segment {segments}")
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return f"after {time.perf_counter() - started:.2f} s"
    return None


def one_round(number: int, source: Path, expected: Any, seconds: float, arguments: argparse.Namespace) -> str | None:
    """Kill once, finish, compare; returns where the kill struck, None where it did not."""
    with tempfile.TemporaryDirectory(prefix="archivecolor-kill-") as name:
        folder = Path(name)
        output = folder / f"out{arguments.extension}"
        run = command(source, output, arguments)
        if number % 4:
            segments = math.ceil(len(expected[0]) / arguments.segment_frames)
            struck = kill(run, folder, random.randint(0, segments), random.uniform(0, seconds / segments), seconds)
        else:
            struck = kill(run, folder, 0, random.uniform(0, seconds), seconds)
        if struck is None:
            return None
        before, frames = journalled(folder)
        copies = {path: folder / f"copy-{index}" for index, path in enumerate(before)}
        for path, copy in copies.items():
            os.link(path, copy)
        again = subprocess.run(run, capture_output=True, text=True, check=False, timeout=longest_s(seconds))
        if again.returncode:
            raise SystemExit(f"round {number}, killed {struck}: the rerun failed: {again.stderr}")
        report = json.loads(again.stdout)["results"][0]
        kept = report.get("frames_kept", 0)
        if report["state"] == "coloured" and kept != frames:
            raise SystemExit(f"round {number}, killed {struck}: {frames} frames were journalled but {kept} used")
        for path, copy in copies.items():
            if copy.stat().st_mtime_ns != before[path]:
                raise SystemExit(f"round {number}, killed {struck}: {path} was written again")
        if content(output) != expected:
            raise SystemExit(f"round {number}, killed {struck}: the film is another one")
        left = sorted(path.name for path in folder.iterdir() if not path.name.startswith("copy-"))
        place = output.relative_to(folder).parts[0]
        if left != sorted([place, f"{place}.json"]):
            raise SystemExit(f"round {number}, killed {struck}: {left} is left")
        return f"{struck}: {frames} frames were journalled, {kept} kept"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--film", type=Path, default=Path(__file__).parent.parent / "examples" / "camera_moves.mp4")
    parser.add_argument("--segment-frames", type=int, default=48)
    parser.add_argument("--extension", default=".mp4", help="or /%%04d.png for an image sequence")
    parser.add_argument("--option", action="append", default=[], help="for colorize, e.g. --option=--crf=20")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="archivecolor-whole-") as folder:
        source = Path(shutil.copy2(arguments.film, folder))
        whole = Path(folder) / f"whole{arguments.extension}"
        started = time.perf_counter()
        subprocess.run(command(source, whole, arguments), check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        expected = content(whole)
        print(f"undisturbed: {len(expected[0])} frames in {seconds:.1f} s", flush=True)
        number = rounds = 0
        while number < arguments.kills:
            if rounds == ROUNDS_A_KILL * arguments.kills:
                raise SystemExit(f"only {number} of {rounds} kills came before the end: the film is too short")
            rounds += 1
            struck = one_round(number + 1, source, expected, seconds, arguments)
            if struck is not None:
                number += 1
                print(f"{number:3} killed {struck}", flush=True)
    print(f"{arguments.kills} kills: every film whole, every journalled segment used")


if __name__ == "__main__":
    main()
