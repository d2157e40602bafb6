"""Pictures composed into grids of blocks, described cell by cell, and saved under their title."""
