"""Read and write weight files: headers, tensors, shards, pickles. No idea of models."""
