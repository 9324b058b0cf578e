"""The options of ``archivecolor train`` that decide what is learned, and where else their values may come from."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from archivecolor.config import PRESETS, RunOptions, TrainConfig

PAPER, USUAL = TrainConfig(), RunOptions()


class Widths(click.ParamType):  # type: ignore[type-arg]
    """Channel counts, comma-separated, or a list in a configuration file."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        try:
            return tuple(int(part) for part in parts)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a list of whole numbers", param, ctx)


def read_config_file(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Take the options' defaults from a TOML file of their names, with dashes or underscores."""
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: not a readable TOML file ({error})") from error
    names = {
        opt.lstrip("-").replace("-", "_"): parameter
        for parameter in ctx.command.params
        for opt in (*parameter.opts, f"--{parameter.name}")
    }
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        parameter = names.get(key.replace("-", "_"))
        if parameter is None or parameter.name is None or parameter is param:
            raise click.BadParameter(f"{path}: there is no option --{key.replace('_', '-')}")
        defaults[parameter.name] = [value] if parameter.multiple and isinstance(value, str) else value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def setting(
    *names: str, field: str, help: str, of: TrainConfig | RunOptions = PAPER, **attributes: Any
) -> Callable[[Any], Any]:
    """An option for one field of `TrainConfig`, the paper's value as default, or of `RunOptions`."""
    default = getattr(of, field)
    return click.option(*names, field, default=default, show_default=default is not None, help=help, **attributes)


def training_settings(function: Any) -> Any:
    """Options for everything that decides what is learned."""
    for option in reversed(
        [
            setting("--preset", field="preset", type=click.Choice(list(PRESETS)), help="Row of the paper's Table I."),
            setting(
                "--gan-loss",
                field="gan_loss",
                type=click.Choice(["bce", "lsgan"]),
                help="Adversarial loss: the paper's log loss, or least squares.",
            ),
            setting("--l1-weight", field="l1_weight", type=float, help="Lambda, the weight of the L1 term."),
            setting(
                "--adversarial-weight",
                field="adversarial_weight",
                type=float,
                help="Weight of the generator's adversarial term.",
            ),
            setting(
                "--distribution-weight",
                field="distribution_weight",
                type=float,
                help="Weight of the distance between a batch's colours as a whole and the true ones; not in the paper.",
            ),
            setting("--size", field="size_px", type=int, metavar="PX", help="Height and width trained at."),
            setting("--batch-size", field="batch_size", type=int, help="Photographs a step, over all processes."),
            setting("--epochs", field="epochs", type=int, help="Length of the run, in passes over the data."),
            setting(
                "--images", field="images", type=int, help="Length of the run in photographs, instead of --epochs."
            ),
            setting(
                "--pretrain-images",
                field="pretrain_images",
                type=int,
                metavar="N",
                help="Begin with N photographs without discriminators.",
            ),
            setting("--lr-g", field="lr_g", type=float, help="Adam's learning rate for the generator."),
            setting("--lr-d", field="lr_d", type=float, help="Adam's learning rate for the discriminators."),
            setting(
                "--lr-schedule",
                field="lr_schedule",
                type=click.Choice(["constant", "linear"]),
                help="Constant, or falling to nothing over the second half.",
            ),
            setting("--beta1", field="beta1", type=float, help="Adam's first moment decay."),
            setting("--beta2", field="beta2", type=float, help="Adam's second moment decay."),
            setting(
                "--ema", field="ema", type=float, help="Decay of the averaged generator, which is what is exported."
            ),
            setting("--augment/--no-augment", field="augment", help="Random crops and flips."),
            setting("--film-look/--no-film-look", field="film_look", help="Give the input the look of old film."),
            setting(
                "--balance", field="balance", type=float, help="Even out the folders: 0 by photograph, 1 by folder."
            ),
            setting("--val-fraction", field="val_fraction", type=float, help="Share of the photographs held out."),
            setting("--seed", field="seed", type=int, help="Seed of everything random."),
            setting(
                "--generator-widths",
                field="generator_widths",
                type=Widths(),
                help="Encoder channels, for a smaller network than the paper's.",
            ),
            setting(
                "--discriminator-widths",
                field="discriminator_widths",
                type=Widths(),
                help="The four channel counts of the discriminators.",
            ),
        ]
    ):
        function = option(function)
    return function


def running_options(function: Any) -> Any:
    """Options for how the work is done."""
    for option in reversed(
        [
            setting("--device", field="device", of=USUAL, help="auto, cuda, cuda:1, mps or cpu."),
            setting(
                "--precision",
                field="precision",
                of=USUAL,
                type=click.Choice(["auto", "bf16", "fp32"]),
                help="Arithmetic of the networks; auto is bf16 where the device has it.",
            ),
            setting(
                "--compile/--no-compile",
                field="compile_networks",
                of=USUAL,
                help="Run the networks through torch.compile.",
            ),
            setting(
                "--cuda-graph/--no-cuda-graph",
                field="cuda_graph",
                of=USUAL,
                help="On one CUDA device, launch each step's work as one graph.",
            ),
            setting(
                "--cache",
                field="cache",
                of=USUAL,
                type=click.Choice(["none", "disk", "ram", "device"]),
                help="Where decoded photographs are kept.",
            ),
            setting(
                "--cache-dir",
                field="cache_dir",
                of=USUAL,
                type=click.Path(resolve_path=True),
                help="Folder of the cache; the user's cache folder if not given.",
            ),
            setting(
                "--workers", field="workers", of=USUAL, type=click.IntRange(1), help="Threads that decode photographs."
            ),
            setting(
                "--log-every",
                field="log_every",
                of=USUAL,
                type=click.IntRange(1),
                metavar="STEPS",
                help="Log the losses.",
            ),
            setting(
                "--validate-every",
                field="validate_every",
                of=USUAL,
                type=click.IntRange(0),
                metavar="STEPS",
                help="Score the held-out photographs and draw the curves; 0 only at the end.",
            ),
            setting(
                "--sample-every",
                field="sample_every",
                of=USUAL,
                type=click.IntRange(0),
                metavar="STEPS",
                help="Write a sample grid; 0 only at the end.",
            ),
            setting(
                "--checkpoint-every",
                field="checkpoint_every",
                of=USUAL,
                type=click.IntRange(1),
                metavar="STEPS",
                help="Write a checkpoint.",
            ),
            setting(
                "--keep", field="keep", of=USUAL, type=click.IntRange(1), metavar="N", help="Newest checkpoints kept."
            ),
        ]
    ):
        function = option(function)
    return function
