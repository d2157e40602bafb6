"""An opened model: a handle that travels, and the components loaded from it."""
