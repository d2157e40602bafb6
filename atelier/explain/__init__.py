"""Show what a model does: tokens, trigger words and denoising steps."""
