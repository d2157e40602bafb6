"""Prompts: a language model that writes them, example sets, an offline writer, and compel's weights."""
