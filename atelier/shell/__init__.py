"""The library from a terminal: one module a verb."""
