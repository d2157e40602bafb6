"""A model that the host has loaded, as what a run trains: built anew from its files, encoded and drawn by the host."""
