"""The only files that meet the host beyond its node API: one file for each subject."""
