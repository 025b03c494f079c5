"""Measurements against peers: same run, same machine, interleaved, medians of ratios."""
