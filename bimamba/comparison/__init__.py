"""Finished runs side by side: rows of a table, its formats and its figures."""
