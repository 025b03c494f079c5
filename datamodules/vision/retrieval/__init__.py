"""Image retrieval: people and places seen by several cameras, their layouts, order and pictures."""
