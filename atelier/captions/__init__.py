"""Describe pictures with a language model that sees: captions for training sets, and their files."""
