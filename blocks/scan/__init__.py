"""The selective scan: one operator, one autograd rule, several backends."""

from blocks.scan.backends import active_backend, scan_backends
from blocks.scan.bidirectional import bidirectional_scan
from blocks.scan.dispatch import selective_scan, selective_scan_fn
from blocks.scan.operator import path_scan

__all__ = [
    "active_backend",
    "bidirectional_scan",
    "path_scan",
    "scan_backends",
    "selective_scan",
    "selective_scan_fn",
]
