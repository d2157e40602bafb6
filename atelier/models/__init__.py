"""What a model is: families, layout, detection, key tables, tokenizer, noise schedule; its handle and its loading."""
