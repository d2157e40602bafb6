"""Pictures and captions as a training set, and their cached encoding."""
