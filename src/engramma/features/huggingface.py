"""Any Hugging Face model in a local folder, and language models in GGUF files.

Weights are read from safetensors or GGUF, which hold numbers only. Pickled weights are refused,
code that lies beside a model is never run, and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext, redirect_stderr
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from engramma.errors import ConfigError, MissingPackageError
from engramma.features.model import FeatureModel, file_fingerprint
from engramma.features.pooling import Activation, Tokens
from engramma.features.surprisal import summarise, token_surprisal
from engramma.nn.hooks import capture, list_modules, match_names

INSTALL = "pip install 'engramma[language]'"
#: What transformers raises for a model that is incomplete, damaged or unknown to it.
LOAD_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)
SURPRISAL = "surprisal"
EMBEDDING = "embedding"


def transformers() -> Any:
    """Import transformers, quietly.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingPackageError(
            "the package transformers is not installed", mend=INSTALL
        ) from error
    return transformers


def read_pretrained(kind: Any, folder: Path, file: str | None = None, **options: Any) -> Any:
    """Call ``from_pretrained`` of a class of transformers or diffusers on a folder.

    Nothing is downloaded, no code beside the model is run, and no progress is shown.

    Parameters
    ----------
    kind : class
    folder : Path
    file : str, optional
        Named in errors, where one file of the folder is read.
    options
        Handed on.

    Raises
    ------
    ConfigError
        If what lies there is incomplete, damaged, or of another kind.
    """
    logging = transformers().utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **options
        )
    except LOAD_ERRORS as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{kind.__name__} cannot read the model ({said[0]})",
            where=str(folder / (file or "")),
            mend=f"save the model again with save_pretrained, or {INSTALL}",
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def folder_fingerprint(folder: Path) -> str:
    """Hash of all files that weights, configurations and preprocessing are read from."""
    kinds = (".safetensors", ".json", ".txt", ".model")
    return file_fingerprint(*(p for p in folder.rglob("*") if p.suffix in kinds))


class HuggingFaceModel(FeatureModel):
    """A model of the transformers library, read from disk when it is first needed.

    Its layers are ``hidden.0`` (the embeddings) to ``hidden.N`` (after the last block);
    ``embedding``, one vector a stimulus, where the model has an image or text embedding of its
    own (CLIP) or was trained as a sentence encoder; ``surprisal`` for causal language models; and
    every submodule by its name.

    Parameters
    ----------
    folder : Path
    gguf : str, optional
        Name of a GGUF file in ``folder``; it is dequantised to float32.
    medium : str
    name : str, optional
        By default the name of the folder or file.
    pool : str
        Over tokens.
    n_layers : int, optional
        Number of blocks, where it is known without reading the file.
    normalise : bool
        Whether ``embedding`` is the mean over tokens brought to length 1, as
        sentence-transformers does.
    max_tokens : int, optional
        Texts are cut after so many tokens; by default where the model's positions end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gguf: str | None = None,
        medium: str = "caption",
        name: str | None = None,
        pool: str = "mean",
        n_layers: int | None = None,
        normalise: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        self.folder, self.gguf, self.medium, self.pool = folder, gguf, medium, pool
        self.name = name or (Path(gguf).stem if gguf else folder.resolve().name)
        self._n_layers = n_layers
        self._normalise = normalise
        self._max_tokens = max_tokens

    # -- what it is ------------------------------------------------------------------------

    @cached_property
    def config(self) -> Any:
        """The model's configuration."""
        if "network" in self.__dict__:  # reading a GGUF file takes seconds
            return self.network.config
        return self._load("AutoConfig")

    @cached_property
    def _tower(self) -> Any:
        """Configuration of the part that takes the medium."""
        part = {"image": "vision_config", "caption": "text_config", "audio": "audio_config"}
        return getattr(self.config, part[self.medium], self.config)

    @property
    def _causal(self) -> bool:
        if self.medium != "caption":
            return False
        if self.gguf:
            return True
        return any("CausalLM" in a or "LMHead" in a for a in self.config.architectures or ())

    @property
    def _contrastive(self) -> bool:
        """Whether it embeds images and texts in one space."""
        return not self.gguf and hasattr(self.config, "vision_config")

    @property
    def _hidden(self) -> list[str]:
        blocks = self._n_layers or int(self._tower.num_hidden_layers)
        return [f"hidden.{i}" for i in range(blocks + 1)]

    @property
    def _static_layers(self) -> list[str]:
        extra = [SURPRISAL] if self._causal else []
        embeds = self._normalise or self._contrastive
        return [*self._hidden, *([EMBEDDING] if embeds else []), *extra]

    @property
    def layers(self) -> Sequence[str]:
        """Hidden states, what is made of them, and all submodules."""
        return [*self._static_layers, *list_modules(self.network)]

    @property
    def default_layers(self) -> Sequence[str]:
        """The sentence embedding where there is one, else hidden states at all depths."""
        return [EMBEDDING] if self._normalise else self._hidden

    def choose(self, wanted: str | Iterable[str] | None) -> list[str]:
        """Choose layers, reading the weights only where a submodule is asked for."""
        if wanted is None:
            return list(self.default_layers)
        wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        try:
            return match_names(wanted, self._static_layers, self.name)
        except ConfigError:
            return match_names(wanted, list(self.layers), f"model {self.name!r}")

    def identity(self) -> str:
        """Hash of all files that weights, configuration and preprocessing are read from."""
        if self.gguf:
            return f"huggingface {self.medium} {file_fingerprint(self.folder / self.gguf)}"
        return f"huggingface {self.medium} {folder_fingerprint(self.folder)}"

    # -- its parts -------------------------------------------------------------------------

    def _load(self, loader: str, **options: Any) -> Any:
        gguf = {"gguf_file": self.gguf} if self.gguf else {}
        # The bar of dequantisation heeds no setting; it is written to standard error.
        with redirect_stderr(StringIO()) if self.gguf else nullcontext():
            return read_pretrained(
                getattr(transformers(), loader), self.folder, self.gguf, **gguf, **options
            )

    @cached_property
    def network(self) -> Any:
        """The network, in evaluation mode and float32."""
        loader = "AutoModelForCausalLM" if self._causal else "AutoModel"
        options = {} if self.gguf else {"use_safetensors": True}
        network = self._load(loader, **options)
        # Called on the base class, since transformers refuses it for GGUF even once dequantised.
        return torch.nn.Module.float(network).eval()

    @cached_property
    def tokenizer(self) -> Any:
        """Tokenizer that pads at the end."""
        tokenizer = self._load("AutoTokenizer")
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer

    @cached_property
    def _processor(self) -> Any:
        image = self.medium == "image"
        return self._load("AutoImageProcessor" if image else "AutoFeatureExtractor")

    def _inputs(self, items: Sequence[Any]) -> dict[str, Any]:
        if self.medium == "caption":
            limit = min(self.tokenizer.model_max_length, self._longest)
            encoded = self.tokenizer(
                list(items), return_tensors="pt", padding=True, truncation=True, max_length=limit
            )
            names = ("input_ids", "attention_mask")
            return {n: encoded[n] for n in names}
        if self.medium == "image":
            return dict(self._processor(images=list(items), return_tensors="pt"))
        from engramma.features.audio import resample

        rate = int(self._processor.sampling_rate)
        waves = [resample(samples, r, rate) for samples, r in items]
        return dict(
            self._processor(
                waves,
                sampling_rate=rate,
                return_tensors="pt",
                padding=True,
                return_attention_mask=True,
            )
        )

    @property
    def _longest(self) -> int:
        positions = getattr(self._tower, "max_position_embeddings", None) or 2**31
        return self._max_tokens or int(positions)

    # -- running it ------------------------------------------------------------------------

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return hidden states and submodules as sequences, embedding and surprisal as vectors."""
        network = self.network
        inputs = self._inputs(items)
        named = [n for n in layers if n not in self._static_layers]
        with torch.inference_mode(), capture(network, named) as outputs:
            result, embedding = self._forward(inputs)
        states = result.hidden_states
        mask = self._mask(inputs, states[0].shape[1])
        answer: dict[str, Activation] = {}
        for layer in layers:
            if layer == SURPRISAL:
                bits = token_surprisal(result.logits, inputs["input_ids"], inputs["attention_mask"])
                answer[layer] = summarise(bits, inputs["attention_mask"])
            elif layer == EMBEDDING and self._normalise:
                weights = mask[..., None].float()
                mean = (states[-1] * weights).sum(dim=1) / weights.sum(dim=1)
                answer[layer] = torch.nn.functional.normalize(mean, dim=1)
            elif layer == EMBEDDING and embedding is not None:
                answer[layer] = embedding
            elif layer in self._static_layers:
                answer[layer] = self._tokens(states[int(layer.partition(".")[2])], mask)
            else:
                answer[layer] = self._submodule(outputs, layer, mask)
        return answer

    def _forward(self, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor | None]:
        """Run the network, or that tower of it which takes the medium."""
        if not self._contrastive:
            return self.network(**inputs, output_hidden_states=True, return_dict=True), None
        kind, projection = {"image": ("vision", "visual"), "caption": ("text", "text")}[self.medium]
        tower = getattr(self.network, f"{kind}_model")
        result = tower(**inputs, output_hidden_states=True, return_dict=True)
        project = getattr(self.network, f"{projection}_projection", None)
        embedding = result.pooler_output
        return result, embedding if project is None else project(embedding)

    def _mask(self, inputs: dict[str, Any], n_tokens: int) -> torch.Tensor:
        """Which tokens are real."""
        mask = inputs.get("attention_mask")
        if mask is not None and mask.shape[1] == n_tokens:
            return mask.bool()
        n_items = len(next(iter(inputs.values())))
        if mask is not None and hasattr(self.network, "_get_feat_extract_output_lengths"):
            lengths = self.network._get_feat_extract_output_lengths(mask.sum(dim=1))
            return torch.arange(n_tokens)[None] < lengths[:, None]
        return torch.ones(n_items, n_tokens, dtype=torch.bool)

    def _tokens(self, values: torch.Tensor, mask: torch.Tensor) -> Activation:
        if values.ndim != 3:  # hidden states of a convolutional network are maps
            return values
        if self.medium != "image":
            return Tokens(values, mask)
        return Tokens(values, None, *_patch_grid(self._tower, values.shape[1]))

    def _submodule(
        self, outputs: dict[str, torch.Tensor], layer: str, mask: torch.Tensor
    ) -> Activation:
        if layer not in outputs:
            raise ConfigError(
                f"the forward pass of {self.name!r} never calls layer {layer!r} for {self.medium}",
                mend="name another layer",
            )
        values = outputs[layer]
        if values.ndim == 3 and values.shape[:2] == mask.shape:
            return self._tokens(values, mask)
        return values


def _patch_grid(config: Any, n_tokens: int) -> tuple[int, int | None]:
    """Tokens that stand for no place, and patches along a side."""
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not isinstance(size, int) or not isinstance(patch, int):
        return 0, None
    side = size // patch
    prefix = n_tokens - side * side
    return (prefix, side) if 0 <= prefix < n_tokens else (0, None)
