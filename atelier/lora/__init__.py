"""LoRA weights: their key formats (kohya, diffusers, PEFT), their files and what is written about them."""
