"""Parts of films as tasks of a Ray cluster: Ray finds them a GPU, and does them again when a node is lost.

Every node needs the same archivecolor, and the sources and outputs under the same paths.
"""

from __future__ import annotations

import importlib
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final

from archivecolor.colorize.part_task import PartTask, work_on_part
from archivecolor.errors import ArchiveColorError, ConfigError, DeviceError

_RETRIES: Final = 20
"""How often a part may lose its node; each time it goes on behind its last segment."""


class RayCrew:
    """A worker for each GPU of the cluster, or for each node where there are none; use as a context manager.

    ``address`` is Ray's: ``auto`` for the cluster that this machine belongs to, or ``HOST:PORT``.

    Raises:
        ConfigError: Ray is not installed.
        DeviceError: there is no cluster at the address.
    """

    def __init__(self, address: str) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigError("--cluster needs Ray: pip install 'archivecolor[cluster]'") from error
        self._ray = ray
        self._connected = not ray.is_initialized()
        try:
            if self._connected:
                ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DeviceError(f"{address}: no Ray cluster can be reached there ({reason})") from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        self._device = "cuda" if gpus else "cpu"
        self.workers = max(1, gpus or len(cores))
        needs = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": min(cores, default=1)}
        self._work: Any = ray.remote(max_retries=_RETRIES, **needs)(_work_on_cores)
        self._cores = needs["num_cpus"]

    def __enter__(self) -> RayCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connected:
            self._ray.shutdown()

    def colour(self, task: PartTask) -> Future[ArchiveColorError | None]:
        """See `archivecolor.colorize.distributed.PartCrew`."""
        cores = None if self._device == "cuda" else self._cores
        found: Future[ArchiveColorError | None] = Future()
        asked = self._work.remote(task, self._device, cores).future()
        asked.add_done_callback(lambda done: found.set_result(self._outcome(task, done)))
        return found

    def _outcome(self, task: PartTask, done: Future[ArchiveColorError | None]) -> ArchiveColorError | None:
        error = None if done.cancelled() else done.exception()
        if error is None and not done.cancelled():
            return done.result()
        reason = " ".join(str(error).split())[:200]
        return ArchiveColorError(f"{task.film.source}: the cluster could not colour a part of it ({reason}); run again")


def _work_on_cores(task: PartTask, device: str, cores: int | None) -> ArchiveColorError | None:
    """On a node: `work_on_part` with the cores that Ray has set aside."""
    if cores is not None:
        import torch

        torch.set_num_threads(cores)
    return work_on_part(task, device)
