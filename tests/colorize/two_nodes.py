"""A film coloured by a Ray cluster of two nodes on this machine, one of which is lost in mid-film.

python -m tests.colorize.two_nodes SOURCE OUTPUT
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from archivecolor.colorize.cluster import RayCrew
from archivecolor.colorize.distributed import PartsCraft
from archivecolor.colorize.progress import NoProgress, never
from archivecolor.colorize.work import work_folder
from archivecolor.config import ColorizeConfig, WorkConfig
from archivecolor.film import OutputSettings

CONFIG = ColorizeConfig(device="cpu", precision="fp32", batch_size=4)
WORK = WorkConfig(segment_frames=16)


def lose(cluster: Any, node: Any, folder: Path) -> None:
    """Kill the node once work has begun, and bring another one."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob("part-*/*.segment"))) < 3:
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    print("a node was lost", flush=True)
    cluster.add_node(num_cpus=1)


def main() -> None:
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    # The head only keeps the books: work is given to the two others.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    try:
        with RayCrew(cluster.address) as crew:
            assert crew.workers == 2
            loser = threading.Thread(target=lose, args=(cluster, nodes[0], work_folder(output, WORK)), daemon=True)
            loser.start()
            report = PartsCraft(crew, CONFIG).film(
                source, output, CONFIG, OutputSettings("ffv1"), work=WORK, progress=NoProgress(), stop=never()
            )
            loser.join(60)
            print(f"{report.frames_written} frames, {report.frames_per_s:.1f} frames/s")
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
