"""What a model does, shown: tokens, trigger words and the steps of a denoising."""
