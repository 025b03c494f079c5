"""Parts of `bimamba sweep`: the search for a good configuration."""
