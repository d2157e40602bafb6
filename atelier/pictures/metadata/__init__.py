"""Prompts and settings found in pictures that other programs made."""
