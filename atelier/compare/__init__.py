"""Compare models and LoRAs: scores, differences and their statistical significance."""
