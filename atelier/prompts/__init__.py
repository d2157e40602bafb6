"""Write prompts with a language model or offline, from example sets; read compel's weighted syntax."""
