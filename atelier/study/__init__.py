"""What pictures are made of, shown: tokens, the steps of a denoising, models side by side."""
