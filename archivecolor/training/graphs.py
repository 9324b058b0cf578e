"""A training update as a CUDA graph: recorded once, then replayed as a single launch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from archivecolor.training.batches import Batch

Update = Callable[[Batch, bool], dict[str, Tensor]]

_WARM_UP_STEPS = 3


class GraphedUpdate:
    """``update`` of a batch, in phases that each do the same work at every step.

    A step of these networks is some thousand small kernels, which take longer to launch than a large GPU takes to
    compute. The first steps of a phase run as they are, so that optimisers have their state and cuDNN has chosen its
    algorithms; then the phase is captured. Batches must keep their shape and memory format, and whatever changes from
    step to step (the learning rate) has to live in tensors on the device.
    """

    def __init__(self, update: Update, device: torch.device) -> None:
        self._update = update
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._phase: bool | None = None
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        self._terms: dict[str, Tensor] = {}

    def __call__(self, batch: Batch, phase: bool) -> dict[str, Tensor]:
        """Do one update; returns its terms, tensors of the caller's own."""
        if phase != self._phase:
            self._phase, self._steps, self._graph, self._batch, self._terms = phase, 0, None, None, {}
        if self._steps < _WARM_UP_STEPS:
            self._steps += 1
            return self._warm_up(batch)
        if self._graph is None or self._batch is None:
            self._batch = (batch[0].clone(), batch[1].clone())
            self._graph = torch.cuda.CUDAGraph()
            # Other threads upload photographs meanwhile, which "global" would take for an error.
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._terms = self._update(self._batch, phase)
        for held, given in zip(self._batch, batch, strict=True):
            held.copy_(given)
        self._graph.replay()
        return {name: term.clone() for name, term in self._terms.items()}

    def _warm_up(self, batch: Batch) -> dict[str, Tensor]:
        """One update as it is, on the stream that is captured later."""
        assert self._phase is not None
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = self._update(batch, self._phase)
        current.wait_stream(self._stream)
        return terms
