"""Weighted prompts in compel's syntax: `syntax` reads them, `embed` computes them on any text encoder."""
