"""Measures of colourisation: the paper's Table I, and beside it colourfulness and histograms."""
