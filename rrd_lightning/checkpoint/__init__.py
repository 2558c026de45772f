"""The on-disk format of checkpoints, and of the replay beside them."""
