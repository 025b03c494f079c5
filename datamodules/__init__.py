"""Data wings: one LightningDataModule per data set, with its readers, layouts and embedded copy."""
