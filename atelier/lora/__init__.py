"""LoRA weights: their key forms (kohya, diffusers, PEFT), their files and what is written about them."""
