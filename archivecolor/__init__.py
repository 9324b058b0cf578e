"""archivecolor: colourise black-and-white archive film.

The package imports nothing heavy by itself, so that ``archivecolor --help`` answers at once: take what you
need from the sub-packages (`archivecolor.film`, `archivecolor.colorize`, `archivecolor.networks`, ...).
"""

__version__ = "0.1.0"
