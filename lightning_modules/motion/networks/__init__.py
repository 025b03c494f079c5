"""Networks that denoise motion, encode scenes, and judge motion and text."""
