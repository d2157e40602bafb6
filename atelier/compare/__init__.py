"""Models and LoRAs side by side: which is better, by how much, and whether that can be told."""
