"""The selective scan: one operator, one autograd rule, several backends."""

from blocks.scan.bidirectional import bidirectional_scan
from blocks.scan.dispatch import active_backend, scan_backends, selective_scan, selective_scan_fn

__all__ = [
    "active_backend",
    "bidirectional_scan",
    "scan_backends",
    "selective_scan",
    "selective_scan_fn",
]
