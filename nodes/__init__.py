"""The node pack: one explicit list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    compare,
    compare_parts,
    convert,
    dataset,
    denoising,
    example_set,
    faces,
    found,
    grid,
    host,
    lora,
    models,
    options,
    prompt_list,
    prompts,
    routes,
    saving,
    score,
    tokens,
    train,
)

NODES: list[type[io.ComfyNode]] = [
    *convert.NODES,
    *models.NODES,
    *dataset.NODES,
    *options.NODES,
    *train.NODES,
    *lora.NODES,
    *prompts.NODES,
    *prompt_list.NODES,
    *tokens.NODES,
    *found.NODES,
    *example_set.NODES,
    *denoising.NODES,
    *score.NODES,
    *faces.NODES,
    *grid.NODES,
    *saving.NODES,
    *compare.NODES,
    *compare_parts.NODES,
]


class AtelierExtension(ComfyExtension):
    """What the host asks for its nodes."""

    async def on_load(self) -> None:
        """Add the routes of the training panel, and have CLIP's tokenizer come from the host, which brings it."""
        host.use_own_tokenizer()
        routes.add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack."""
        return NODES
