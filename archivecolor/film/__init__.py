"""Films and stills in and out; the only part of archivecolor that uses PyAV."""

from archivecolor.film.colour import read_rgb
from archivecolor.film.deinterlace import Deinterlace, after_deinterlacing
from archivecolor.film.frames import LumaFrame, ReadReport, SidePacket
from archivecolor.film.info import Chapter, FilmInfo, Picture, StreamInfo
from archivecolor.film.pixels import PixelFormat, pixel_format
from archivecolor.film.probe import probe
from archivecolor.film.profiles import (
    CONTAINERS,
    PROFILES,
    OutputPlan,
    OutputSettings,
    default_extension,
    plan_output,
)
from archivecolor.film.reader import FilmReader, exact_time
from archivecolor.film.samples import NEUTRAL_CHROMA, FilmSamples, picture_length_s, sample_frames
from archivecolor.film.segment_writer import FilmSegmentWriter, SequenceSegmentWriter, Written, is_as_written
from archivecolor.film.segments import SegmentFile, interleave
from archivecolor.film.sequence_writer import SequenceWriter, plan_sequence
from archivecolor.film.sequences import (
    SEQUENCE_EXTENSIONS,
    SequenceReader,
    holds_frames,
    is_pattern,
    looks_like_a_film,
    probe_sequence,
    sequence_files,
)
from archivecolor.film.still_tags import DIGITAL_SOURCE_TYPE, read_tags
from archivecolor.film.stills import STILL_EXTENSIONS, Still, is_still, read_still, write_still
from archivecolor.film.streams import LeftOut
from archivecolor.film.synthetic import make_synthetic_film
from archivecolor.film.writer import EMPTY_BYTES, FilmWriter
from archivecolor.film.written import check_film

__all__ = [
    "CONTAINERS",
    "DIGITAL_SOURCE_TYPE",
    "EMPTY_BYTES",
    "NEUTRAL_CHROMA",
    "PROFILES",
    "SEQUENCE_EXTENSIONS",
    "STILL_EXTENSIONS",
    "Chapter",
    "Deinterlace",
    "FilmInfo",
    "FilmReader",
    "FilmSamples",
    "FilmSegmentWriter",
    "FilmWriter",
    "LeftOut",
    "LumaFrame",
    "OutputPlan",
    "OutputSettings",
    "Picture",
    "PixelFormat",
    "ReadReport",
    "SegmentFile",
    "SequenceReader",
    "SequenceSegmentWriter",
    "SequenceWriter",
    "SidePacket",
    "Still",
    "StreamInfo",
    "Written",
    "after_deinterlacing",
    "check_film",
    "default_extension",
    "exact_time",
    "holds_frames",
    "interleave",
    "is_as_written",
    "is_pattern",
    "is_still",
    "looks_like_a_film",
    "make_synthetic_film",
    "picture_length_s",
    "pixel_format",
    "plan_output",
    "plan_sequence",
    "probe",
    "probe_sequence",
    "read_rgb",
    "read_still",
    "read_tags",
    "sample_frames",
    "sequence_files",
    "write_still",
]
