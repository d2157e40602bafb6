"""Compose pictures into block grids, describe them in manifests, and save pictures under their titles."""
