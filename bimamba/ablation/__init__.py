"""Variants times sizes times seeds of one configuration: planned, run and put into a table."""
