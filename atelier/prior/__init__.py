"""Prior-preservation pictures that the base model draws itself, before training."""
