"""Outputs that appear under their name only once they are whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archivecolor.errors import FilmEncodeError

log = logging.getLogger(__name__)


@contextmanager
def atomic_output(output: Path) -> Iterator[Path]:
    """A temporary path beside ``output`` to write to, which gets its name at the end of the block.

    When the block raises, the temporary file is removed and what was at ``output`` before stays. Raises
    `FilmEncodeError` when the file cannot be put in place.
    """
    partial = output.with_name(f".{output.name}.partial")
    try:
        yield partial
        try:
            partial.replace(output)
        except OSError as error:
            raise FilmEncodeError(f"{output}: cannot be put in place ({error.strerror})") from error
    finally:
        try:
            partial.unlink(missing_ok=True)
        except (
            OSError
        ) as error:  # a read-only folder, say: then the file was never made, and another error is on its way
            log.debug("%s: cannot be removed (%s)", partial, error)
