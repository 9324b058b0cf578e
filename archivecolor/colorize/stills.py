"""One photograph or scanned frame from file to file, through the same engine and colour arithmetic as a film."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from archivecolor import color
from archivecolor.colorize.atomic import atomic_output
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.mattes import find_picture
from archivecolor.colorize.recombine import place_chroma
from archivecolor.colorize.report import ColorizeReport
from archivecolor.colorize.sidecar import fixity, record_of, write_record
from archivecolor.config import ColorizeConfig
from archivecolor.errors import ConfigError, FilmEncodeError
from archivecolor.film import STILL_EXTENSIONS, read_still, read_tags, write_still


@torch.inference_mode()
def colorize_still(source: Path, output: Path, engine: Engine, config: ColorizeConfig) -> ColorizeReport:
    """Colourise one still into ``output`` (PNG, JPEG or TIFF by its extension), in the source's bit depth.

    Raises:
        FilmOpenError: the source is not a readable picture.
        FilmEncodeError: the output cannot be written.
        ConfigError: the settings make no sense for a still.
    """
    started = time.perf_counter()
    extension = output.suffix.lower()
    if extension not in STILL_EXTENSIONS:
        raise FilmEncodeError(f"{output}: a still is written as one of {', '.join(sorted(STILL_EXTENSIONS))}")
    if config.recombine == "luma":
        raise ConfigError(f"{source}: an RGB still has no luma plane to keep; leave --recombine at lab")

    if config.start_s is not None or config.end_s is not None:
        raise ConfigError(f"{source}: a still has no time to cut; leave out --start and --end")
    still = read_still(source)
    height, width = still.luma.shape
    _, white = color.code_range(still.bit_depth, full_range=True)
    picture = find_picture([still.luma], black=0, white=white)
    codes = torch.from_numpy(still.luma.astype(np.int32)).to(engine.device)
    L = color.lightness_table(still.bit_depth, full_range=True).to(engine.device)[codes][None, None]
    engine.fit([])  # steps fitted to an earlier film would not suit it
    [chroma] = engine.within_memory([L], lambda some: engine.chroma(some[0], picture))
    ab = place_chroma(chroma, height, width, picture, height, width, config.chroma_upsampling, L)
    rgb = (color.lab_to_rgb(torch.cat([L, ab], dim=1))[0] * white).round().permute(1, 2, 0).cpu().numpy()

    tags = read_tags(source)
    warnings = [*still.warnings, *tags.warnings]
    if not still.was_neutral:
        warnings.append("the source is in colour; only its luma was used")
    if still.bit_depth > 8 and extension in (".jpg", ".jpeg"):
        warnings.append("the source has 16 bits, JPEG 8; .png and .tif keep them")
    with atomic_output(output) as partial:
        write_still(partial, rgb.astype(still.luma.dtype), extension, shown_as=output, tags=tags)
        record = record_of(
            source=source,
            source_fixity=fixity(source),
            output=output,
            written=partial,
            model=engine,
            device=str(engine.device),
            precision=engine.precision,
            config=config,
            settings=None,
            seconds=time.perf_counter() - started,
            frames={"read": 1, "written": 1},
            warnings=warnings,
        )
    write_record(output, record)
    return ColorizeReport(
        source=source,
        output=output,
        frames_read=1,
        frames_written=1,
        picture=picture,
        seconds=time.perf_counter() - started,
        device=str(engine.device),
        precision=engine.precision,
        weights_sha256=engine.weights_sha256,
        warnings=warnings,
    )
