"""ComfyUI entry of Atelier.

Nothing is imported here: the host stays fast to start, and test runners that import this file by accident
(it is named like a package) see no side effect. Why: docs/decisions/0001-architecture.md.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the extension object; the host calls this once after loading the module."""
    from .nodes import AtelierExtension

    return AtelierExtension()
