"""``archivecolor evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from archivecolor.cli.console import command_options, error_console, print_warning
from archivecolor.cli.evaluate_films import evaluate_films
from archivecolor.cli.options import ENCODING, TimeOfFilm, colour_options, output_options, weights_option
from archivecolor.cli.training_display import decoding_bar
from archivecolor.config import ColorizeConfig
from archivecolor.errors import ConfigError, DataError, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from archivecolor.evaluation.table import Evaluation
    from archivecolor.networks import Generator
    from archivecolor.training.data import PhotoSet


@click.command()
@click.argument("methods", metavar="[NAME=]RUN_OR_WEIGHTS...|CLIP...", nargs=-1, required=True)
@click.option(
    "--film",
    "films",
    is_flag=True,
    help="The arguments are clips: each is made grey, colourised, and held against its own colours.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of colour photographs, searched through; may be given several times.",
)
@click.option("--images", type=click.IntRange(1), metavar="N", help="Evaluate on N of them, the same ones each time.")
@click.option(
    "--size",
    "size_px",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="PX",
    help="Height and width evaluated at; of a film, its longest side.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write tables there (JSON, Markdown) and figures (PNG).",
)
@click.option(
    "--grid", type=click.IntRange(1), default=6, show_default=True, metavar="N", help="Photographs in the grid."
)
@click.option(
    "--vgg",
    metavar="FILE",
    help="VGG19's ImageNet weights for L_perc; 'download' fetches torchvision's; by default a file fetched before.",
)
@click.option(
    "--vgg-input",
    type=click.Choice(["caffe", "torchvision"]),
    default="caffe",
    show_default=True,
    help="Preprocessing for VGG19; caffe is the paper's and sets the scale of Table I.",
)
@click.option(
    "--film-look", is_flag=True, help="Show the networks what old film would have made of the photographs, seeded."
)
@click.option("--device", default="auto", show_default=True, help="auto, cuda, cuda:1, mps or cpu.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32", "int8"]),
    help="Arithmetic of the generators: fp32 unless said otherwise, auto for films.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Photographs or frames at a time.")
@click.option(
    "--cache",
    type=click.Choice(["none", "disk", "ram"]),
    default="disk",
    show_default=True,
    help="Where decoded photographs are kept.",
)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of the cache of decoded photographs.")
@weights_option
@colour_options
@output_options
@click.option("--start", "start_s", type=TimeOfFilm(), help="Of each film, begin here.")
@click.option("--end", "end_s", type=TimeOfFilm(), help="Of each film, stop before here.")
@click.option(
    "--point",
    "points",
    type=(click.FloatRange(0, 1), click.FloatRange(0, 1)),
    multiple=True,
    metavar="X Y",
    help="Follow a and b here over time, parts of a film's width and height; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON on standard output.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table as Markdown on standard output.")
@command_options
def evaluate(
    methods: tuple[str, ...],
    films: bool,
    data: tuple[Path, ...],
    images: int | None,
    size_px: int,
    out: Path | None,
    grid: int,
    vgg: str | None,
    vgg_input: Any,
    film_look: bool,
    device: str,
    precision: Any,
    batch_size: int | None,
    cache: Any,
    cache_dir: Path | None,
    points: tuple[tuple[float, float], ...],
    as_json: bool,
    as_markdown: bool,
    quiet: bool,
    **film_settings: Any,
) -> None:
    """Measure weights on photographs, or how steady films become.

    On photographs: the columns of the paper's Table I and more, and its figures 4 and 5. Each method is a run folder
    (its averaged generator is taken) or a .safetensors file, under its own name or the one before the equals sign. The
    rows grey (no colour at all) and truth bound what the figures mean.

    \b
    archivecolor evaluate --data imagenet_test runs/bn runs/ibn-sn-md --out table1
    archivecolor evaluate --data photos --markdown ours=weights/ibn-sn-md.safetensors

    With --film, measure how steady films become and how close to their own colours, beside colouring each frame by
    itself, the clip's own colours and none at all. A clip that is black-and-white has no truth to be held against.
    Warping error and CDC say how much colour changes from frame to frame, along the motion and in all: lower is
    steadier, the truth's own is the mark. docs/steadiness.md defines each column. Films are measured as FFV1 keeps
    them; --profile access measures what H.264 makes of them.

    \b
    archivecolor evaluate --film colour_clip.mp4 --out steadiness
    archivecolor evaluate --film colour_clip.mp4 --profile access
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown cannot both be printed; --out DIR writes both")
    _refuse_misplaced(click.get_current_context(), films)
    if films:
        encoding = {name: film_settings.pop(name) for name in ENCODING}
        config = ColorizeConfig(device=device, precision=precision or "auto", batch_size=batch_size, **film_settings)
        evaluate_films(
            methods, config, encoding, size_px, points, out, as_json=as_json, as_markdown=as_markdown, quiet=quiet
        )
        return
    if not data:
        raise click.UsageError("name the photographs with --data DIR, or measure films with --film")
    precision, batch_size = precision or "fp32", batch_size or 16
    if precision == "int8":
        raise click.UsageError("--precision int8 is fitted to a film; it goes with --film")

    import torch

    from archivecolor.colorize.device import choose_device, choose_dtype
    from archivecolor.evaluation.table import evaluate as evaluate_methods
    from archivecolor.networks import fold_generator
    from archivecolor.training import augment
    from archivecolor.training.data import load_photos
    from archivecolor.training.sampling import Draws, hash_seed

    chosen = choose_device(device)
    dtype = choose_dtype(precision, chosen)
    generators = load_methods(methods, size_px)
    with decoding_bar(quiet) as on_decoded:
        photos = load_photos(data, size_px, cache=cache, cache_dir=cache_dir, on_progress=on_decoded)
    perceptual, reason = _perceptual(vgg, vgg_input, chosen)
    looked = "The networks saw them as old film." if film_look else ""
    notes = [note for note in (photos.left_out_note, reason) if note]
    for note in notes if not quiet else ():
        print_warning(note)

    def on_film(rgb: Tensor, done: int) -> Tensor:
        looks = []
        for number, photo in enumerate(torch.split(rgb.cpu(), 1), done):  # on every device, and in any batch, the same
            draws = Draws(hash_seed(0, number), 1, slice(None), photo.device)
            looks.append(augment.film_look(photo, draws))
        return torch.cat(looks).to(rgb.device)

    indices = choose_indices(photos, images)
    with _progress(len(indices), quiet) as on_progress:
        evaluation = evaluate_methods(
            (photos.fetch(indices[i : i + batch_size], chosen) for i in range(0, len(indices), batch_size)),
            {name: fold_generator(generator).to(chosen, dtype) for name, generator in generators.items()},
            device=chosen,
            dtype=dtype,
            perceptual=perceptual,
            look=on_film if film_look else None,
            keep_pictures=grid,
            on_progress=on_progress,
        )
    evaluation.note = " ".join(note for note in (looked, "; ".join(notes)) if note)
    if out is not None:
        _write_all(evaluation, out)
    if as_json:
        click.echo(evaluation.to_json())
    elif as_markdown:
        click.echo(evaluation.to_markdown())
    elif not quiet:
        _show_table(evaluation)


_PHOTOGRAPHS_ONLY = {"data", "images", "grid", "vgg", "vgg_input", "film_look", "cache", "cache_dir"}
_EITHER = {"methods", "films", "size_px", "out", "device", "precision", "batch_size", "as_json", "as_markdown"}


def _refuse_misplaced(context: click.Context, films: bool) -> None:
    """Options of the one kind of evaluation given for the other are wrong usage."""
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)
        if given and name not in _EITHER | {"quiet", "debug"} and films == (name in _PHOTOGRAPHS_ONLY):
            other = "does not go with --film" if films else "goes with --film only"
            raise click.UsageError(f"{parameter.opts[0]} {other}")


def load_methods(given: tuple[str, ...], size_px: int) -> dict[str, Generator]:
    """The generators named on the command line, by name.

    Raises:
        ConfigError: a name is there twice, or a generator does not take this size.
        DataError, WeightsError: no run and no weights there.
    """
    from archivecolor.training.runs import load_trained
    from archivecolor.weights import find_weights, load_generator

    generators: dict[str, Generator] = {}
    for argument in given:
        name, _, location = argument.rpartition("=")
        path = Path(location)
        name = name or path.name.removesuffix(".safetensors")
        if path.is_dir():
            generator = load_trained(path).generator
        else:
            try:
                weights = find_weights(location)
            except WeightsError as error:
                raise WeightsError(f"{location} is no run folder, and {error}") from error
            generator = load_generator(weights)
        if name in generators:
            raise ConfigError(f"two methods are called {name!r}: name them apart by NAME=PATH")
        if size_px % generator.config.size_multiple_px:
            raise ConfigError(
                f"{argument}: takes sizes in multiples of {generator.config.size_multiple_px}, not {size_px}"
            )
        generators[name] = generator
    return generators


def choose_indices(photos: PhotoSet, images: int | None) -> list[int]:
    """All photographs, or ``images`` of them spread over the set."""
    if images is None or images >= len(photos):
        return list(range(len(photos)))
    return [i * len(photos) // images for i in range(images)]


def _perceptual(vgg: str | None, vgg_input: Any, device: torch.device) -> tuple[Any, str]:
    """L_perc, or None and the reason why it cannot be had; weights asked for by name have to be there."""
    from archivecolor.evaluation.perceptual import load_vgg19

    try:
        return load_vgg19(vgg, vgg_input).to(device), ""
    except DataError as error:
        if vgg is not None:
            raise
        return None, f"L_perc was not measured: {error}"


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    console = error_console()
    if quiet or not console.is_terminal:
        yield None
        return
    with Progress(TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def _write_all(evaluation: Evaluation, folder: Path) -> None:
    from archivecolor.evaluation.figures import draw_grid, draw_histograms

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "table.json").write_text(evaluation.to_json() + "\n")
        (folder / "table.md").write_text(evaluation.to_markdown() + "\n")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error
    draw_histograms(evaluation, folder / "fig4_histograms.png")
    draw_grid(evaluation, folder / "fig5_grid.png")


def _show_table(evaluation: Evaluation) -> None:
    from archivecolor.evaluation.table import COLUMNS

    table = Table(caption=f"{evaluation.images} photographs")
    table.add_column("method")
    for _, heading, _ in COLUMNS:
        table.add_column(Text(heading), justify="right", overflow="fold")  # brackets in a str are rich's markup
    for row in evaluation.rows:
        table.add_row(Text(row.method), *evaluation.cells(row))
    console = Console()
    if not console.is_terminal:
        console.width = 120  # in a file or a pipe, room for every heading
    console.print(table)
