"""Pictures: decoding, PNG chunks, labels, and the prompts that other programs left in them."""
