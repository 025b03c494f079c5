"""The steps of `bimamba check`, one family a file; `bimamba.check` lists and runs them."""
