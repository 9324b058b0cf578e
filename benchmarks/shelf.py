"""What a shelf of many reels costs beside the colouring: the catalogue, a rerun, its status; and a long film's journal.

    python benchmarks/shelf.py --reels 1000

The reels are stubs, and who colours them only writes a few bytes and the record beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path

from archivecolor.colorize.batch import Job, JobResult
from archivecolor.colorize.catalogue import Catalogue
from archivecolor.colorize.journal import Journal, Restart, Segment
from archivecolor.colorize.report import ColorizeReport
from archivecolor.colorize.shelf import Shelf
from archivecolor.colorize.sidecar import VERSION, write_record
from archivecolor.colorize.space import Space
from archivecolor.config import WorkConfig
from archivecolor.disk import file_sha256


class Stubs:
    """Does every job at once."""

    workers = 1

    def submit(self, job: Job) -> Future[JobResult]:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.write_bytes(b"a coloured film")
        source = {"path": str(job.source), "size_bytes": job.source.stat().st_size, "sha256": file_sha256(job.source)}
        write_record(job.output, {"sidecar_version": VERSION, "source": source})
        done: Future[JobResult] = Future()
        done.set_result(JobResult(job, "coloured", ColorizeReport(job.source, job.output, 129600, 129600)))
        return done


def through(jobs: list[Job], out: Path) -> float:
    """Seconds for a run."""
    started = time.perf_counter()
    with Catalogue(out) as catalogue:
        stop = threading.Event()
        shelf = Shelf(catalogue, Space(out, print, stop, 0), "00000000", WorkConfig(), Stubs(), stop)
        assert len(list(shelf.run(jobs))) == len(jobs)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reels", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="archivecolor-shelf-") as name:
        folder, out = Path(name), Path(name) / "out"
        out.mkdir()
        jobs = []
        for number in range(arguments.reels):
            source = folder / "reels" / f"box {number // 40:03}" / f"reel {number:04}.mov"
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(os.urandom(1000 + number % 7))
            jobs.append(Job(source, out / source.relative_to(folder / "reels").with_suffix(".mp4")))
        print(f"{arguments.reels} reels, entered and done: {through(jobs, out):.2f} s")
        print(f"the same again, all known: {through(jobs, out):.2f} s")
        for job in jobs[::2]:
            job.source.rename(job.source.with_name(f"moved {job.source.name}"))
        moved = [
            Job(job.source.with_name(f"moved {job.source.name}"), job.output.with_name(f"moved {job.output.name}"))
            for job in jobs[::2]
        ]
        print(f"{len(moved)} of them renamed, found again by their content: {through(moved, out):.2f} s")
        assert not any(job.output.exists() for job in moved)
        print(f"catalogue: {(out / 'catalogue.sqlite3').stat().st_size / 1024:.0f} KiB")
        for how in ([], ["--json"]):
            started = time.perf_counter()
            command = [sys.executable, "-m", "archivecolor", "status", str(out), *how]
            shown = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"archivecolor status {' '.join(how):7}: {time.perf_counter() - started:.2f} s")
        assert len(json.loads(shown.stdout)["films"]) == arguments.reels

        journal = Journal(folder)
        counts = {"frames": 960, "given": 960, "repeated": 12, "without_bars": 0, "undecodable_packets": 0}
        started = time.perf_counter()
        for number in range(135):  # 90 minutes at 24 frames a second
            at = Fraction(number * 40)
            restart = Restart(960 * (number + 1) - 8, at, 960 * (number + 1))
            journal.append(
                Segment(
                    f"{number:06}.segment", 960 * number, 960, 123_456_789, "0" * 64, at, at, at, restart, counts,
                    (), "cuda:0", "bf16",
                ),
                lambda error: None,
            )  # fmt: skip
        size = journal.path.stat().st_size
        print(
            f"journal of 90 minutes: {size / 1024:.0f} KiB, {(time.perf_counter() - started) / 135 * 1e3:.1f} ms a line"
        )
        started = time.perf_counter()
        assert len(journal.read()) == 135
        print(f"read again: {(time.perf_counter() - started) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
