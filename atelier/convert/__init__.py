"""Checkpoints in the original (LDM) layout to diffusers folders and back, by byte ranges."""
