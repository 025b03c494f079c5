"""One file for each family of layouts; `datamodules.vision.imagenet_layouts` knows them all."""
