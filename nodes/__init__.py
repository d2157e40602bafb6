"""The node pack: the list of its nodes, and the entry point that hands them to the host."""

from __future__ import annotations

import logging

from comfy_api.latest import ComfyExtension, io

from .add_prompt_example import AddPromptExample
from .apply_lora import ApplyLora
from .block_grid import BlockGrid
from .caption_pictures import CaptionPictures
from .check_training_set import CheckTrainingSet
from .check_trigger import CheckTrigger
from .clip_score import ClipScore
from .compare_models import CompareModels
from .comparison_gate import ComparisonGate
from .comparison_picture import ComparisonPicture
from .comparison_result import ComparisonResult
from .convert_checkpoint import ConvertCheckpoint
from .convert_lora import ConvertLora
from .demo_model import DemoModel
from .denoising_steps import DenoisingSteps
from .export_checkpoint import ExportCheckpoint
from .export_training import ExportTraining
from .extract_lora import ExtractLora
from .filler_images import FillerImages
from .host import folders, output_targets, packages
from .hub_dataset import HubDataset
from .image_folder import ImageFolder
from .images_to_training_set import ImagesToTrainingSet
from .join_training_sets import JoinTrainingSets
from .llm import LanguageModelNode
from .load_for_sampling import LoadForSampling
from .loaded_model import LoadedModelNode
from .lora_config import LoraConfigNode
from .merge_loras import MergeLoras
from .model_to_compare import ModelToCompare
from .open_model import OpenModel
from .panel import folder_routes, routes
from .pick_best import PickBest
from .prior_pictures import PriorPictures
from .prompt_list import PromptList
from .random_art_prompts import RandomArtPrompts
from .read_prompt import ReadPrompt
from .resize_lora import ResizeLora
from .restore_faces import RestoreFaces
from .save_titled import SaveTitled
from .tokens import TokensNode
from .train_lora import TrainLora
from .training_options import TrainingOptionsNode
from .weighted_prompt import WeightedPromptNode
from .write_prompt import WritePrompt
from .xy_grid import XYGrid

NODES: list[type[io.ComfyNode]] = [
    DemoModel, ConvertCheckpoint, ExportCheckpoint, OpenModel, LoadedModelNode, LoadForSampling,
    ImageFolder, HubDataset, ImagesToTrainingSet, CaptionPictures, CheckTrainingSet, JoinTrainingSets, PriorPictures,
    LoraConfigNode, TrainingOptionsNode, TrainLora, ExportTraining,
    ApplyLora, ConvertLora, ResizeLora, MergeLoras, ExtractLora,
    LanguageModelNode, WritePrompt, RandomArtPrompts, WeightedPromptNode, PromptList,
    TokensNode, CheckTrigger,
    ReadPrompt, AddPromptExample,
    DenoisingSteps,
    ClipScore, PickBest,
    RestoreFaces,
    FillerImages, BlockGrid, SaveTitled,
    ModelToCompare, CompareModels, XYGrid, ComparisonGate, ComparisonPicture, ComparisonResult,
]
"""Every node, in the order in which the host lists them."""

for _node in NODES:
    packages.explain_missing(_node)


class AtelierExtension(ComfyExtension):
    """Registers the pack with the host."""

    async def on_load(self) -> None:
        """Use the host's copy of CLIP's vocabulary, join its server, and say what is missing."""
        folders.use_host_tokenizer()
        routes.add_routes()
        folder_routes.add_routes()
        output_targets.limit_targets()
        if missing := packages.missing_packages():
            logging.getLogger("atelier").warning(
                "Atelier needs %s, which this Python does not find. Stop ComfyUI, run %s and start it again.",
                " and ".join(missing), packages.install_command())

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack."""
        return NODES
