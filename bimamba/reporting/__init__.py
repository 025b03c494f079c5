"""Parts of `bimamba report`: several runs as one page."""
