"""What a training run is asked to do: one file for each kind of decision, and the presets they start from."""
