"""medvlm.model."""

if not __name__.startswith("medvlm."):
    raise ImportError(
        "'model' is the folder; the package is medvlm.model. Run `pip install -e .` in the repository and import that."
    )

import medvlm.model.vision_libraries  # noqa: F401 (transformers needs it first: see there)

# isort: split
from medvlm.model.config import MedVLMConfig, ProjectorConfig, VisionConfig
from medvlm.model.loading import build_model, load_checkpoint, register, save_checkpoint
from medvlm.model.medvlm import MedVLMForConditionalGeneration
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.visual import Image, Video, Volume

register()

__all__ = [
    "Image",
    "MedVLMConfig",
    "MedVLMForConditionalGeneration",
    "MedVLMProcessor",
    "ProjectorConfig",
    "Video",
    "VisionConfig",
    "Volume",
    "build_model",
    "load_checkpoint",
    "save_checkpoint",
]
