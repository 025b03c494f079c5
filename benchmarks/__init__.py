"""Measurements beside peers, run by `bimamba bench`; the figures of record are in `results`."""
