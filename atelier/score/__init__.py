"""How well pictures match their texts, by CLIP."""
