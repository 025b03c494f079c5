"""Readers of retrieval sets, one on-disk layout each."""
