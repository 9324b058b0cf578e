"""``archivecolor train``."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from archivecolor.cli.console import command_options, error_console, print_warning
from archivecolor.cli.training_display import decoding_bar, training_display
from archivecolor.cli.training_options import read_config_file, running_options, training_settings
from archivecolor.config import RunOptions, TrainConfig
from archivecolor.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from archivecolor.training.data import PhotoSet
    from archivecolor.training.distributed import Processes
    from archivecolor.training.runs import Run


@click.command()
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of photographs, searched through; may be given several times.",
)
@click.option(
    "--out",
    "run",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="RUN",
    help="Run folder: checkpoints, metrics, curves, samples.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=read_config_file,
    metavar="FILE.toml",
    help="Values for these options by name; those given here override them.",
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in RUN, if there is one.")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="WEIGHTS|RUN",
    help="Start a new run from exported weights, or from the networks of another run.",
)
@training_settings
@running_options
@command_options
@click.pass_context
def train(
    ctx: click.Context,
    /,
    *,
    data: tuple[Path, ...],
    run: Path,
    resume: bool,
    init: Path | None,
    quiet: bool,
    **values: Any,
) -> None:
    """Train the paper's networks on a tree of colour photographs.

    Ctrl-C or SIGTERM writes a checkpoint and stops; the same command with --resume goes on as if it had not been
    stopped. Several GPUs: torchrun --nproc-per-node N -m archivecolor train ...

    \b
    archivecolor train --data imagenet_val --out runs/ibn-sn-md
    archivecolor train --data photos --out runs/film --film-look --augment --images 400000
    archivecolor train --out runs/film --resume --images 800000
    """
    given = [name for name in values if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
    asked = TrainConfig(**{field.name: values.pop(field.name) for field in fields(TrainConfig)})
    asked_options = RunOptions(**values)

    import torch

    from archivecolor.colorize.device import choose_device, choose_dtype
    from archivecolor.training.distributed import Processes
    from archivecolor.training.loop import train as train_loop
    from archivecolor.training.runs import Run, begin_or_resume, load_start
    from archivecolor.training.trainer import Trainer

    planned = begin_or_resume(run, Run(asked, data, asked_options), given, resume=resume)
    config, options = planned.config, planned.options
    with Processes.from_environment() as processes, StopSignals(insist=processes.world_size == 1) as stop:
        silent = quiet or not processes.is_first
        # The one-channel kernel, whose memory format is ambiguous: a copy of 4 kB a step.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        chosen = choose_device(processes.device_name(options.device))
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen.index or 0)
            torch.backends.cudnn.benchmark = True  # every batch has the same shape
        dtype = choose_dtype(options.precision, chosen)
        photos = _load_photos(planned, processes, chosen, silent)
        trainer = Trainer(
            config,
            photos,
            chosen,
            None if dtype is torch.float32 else dtype,
            processes=processes,
            init=load_start(init) if init else None,
            compile_networks=options.compile_networks,
            cuda_graph=options.cuda_graph,
        )
        if processes.is_first:
            planned.write(run)
        stop.patient = True
        with training_display(f"{config.preset} on {chosen}, {str(dtype).removeprefix('torch.')}", silent) as reporter:
            complete = train_loop(trainer, run, options, reporter=reporter, should_stop=stop.requested)
    if complete and not silent:
        error_console().print(f"{run}: trained, {trainer.step} steps of {config.batch_size} photographs", markup=False)
    elif not complete:
        if processes.is_first:
            print_warning(f"stopped at step {trainer.step} of {trainer.total_steps}; go on with --resume")
        sys.exit(128 + (stop.received or signal.SIGTERM))  # another process may have been the one that was told


def _load_photos(planned: Run, processes: Processes, device: torch.device, silent: bool) -> PhotoSet:
    """Decode in one process of each machine, then open the cache in the others."""
    from archivecolor.training.data import load_photos

    options = planned.options

    def load(on_progress: Callable[[int, int], None] | None) -> PhotoSet:
        return load_photos(
            planned.data,
            planned.config.stored_px,
            cache=options.cache,
            cache_dir=Path(options.cache_dir) if options.cache_dir else None,
            device=device,
            workers=options.workers,
            on_progress=on_progress,
        )

    if processes.local_rank == 0:
        with decoding_bar(silent) as on_progress:
            photos = load(on_progress)
        processes.wait()
    else:
        processes.wait()
        photos = load(None)
    if processes.from_first(photos.fingerprint) != photos.fingerprint:
        raise ConfigError("the processes see different photographs: every machine needs the same folders")
    if photos.left_out_note and not silent:
        print_warning(f"{photos.left_out_note}; left_out.tsv in the run folder lists them")
    return photos


class StopSignals:
    """SIGINT and SIGTERM as a request to stop: at once while nothing is at stake, else after the step in hand.

    With ``insist`` a second signal does not wait. Under torchrun it has to: a Ctrl-C reaches each process twice, from
    the terminal and from torchrun, which kills a process that takes longer than its --shutdown-timeout.
    """

    def __init__(self, *, insist: bool) -> None:
        self.patient, self.insist = False, insist
        self.received = 0

    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.received != 0

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.patient or (self.received and self.insist):
            raise KeyboardInterrupt
        self.received = self.received or number
