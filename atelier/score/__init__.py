"""Score how well pictures match texts, with CLIP models."""
