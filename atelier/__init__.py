"""Fine-tune Stable Diffusion, generate, score and compose: the library behind the Atelier nodes.

The library knows nothing of ComfyUI. Its stages, in the order data flows through them, are listed in
`docs/decisions/0001-architecture.md`; a module imports only from earlier stages. Import the module you
need (`from atelier.models.open import open_model`): the package re-exports nothing, so that composing a
grid never imports training code.
"""

__version__ = "0.2.0"
