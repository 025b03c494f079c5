"""Image retrieval: networks with identity heads, their losses, and evaluation by ranking."""
