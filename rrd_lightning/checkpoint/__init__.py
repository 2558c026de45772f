"""Checkpoints: the format of their files, and the replay beside them."""
