"""The layers that every memory is held against, under the same contract."""

from __future__ import annotations

from engramma.memory.attention import SoftmaxAttention, WindowAttention
from engramma.memory.linear import DeltaNet, GatedDeltaNet, LinearAttention
from engramma.memory.recurrent import LSTM
from engramma.memory.state_space import StateSpace
from engramma.registry import system

TASKS = (
    "recall",
    "recall-noise",
    "needle",
    "copy",
    "selective-copy",
    "bytes",
    "event-segmentation",
)
OTHER_TASKS = (
    "babi",
    "ballet",
    "object-permanence",
    "few-shot-classification",
    "few-shot-regression",
)


class ConvolvedAttention(SoftmaxAttention):
    """Softmax attention to all tokens, with the short convolution that recurrent layers have."""

    def __init__(self, dim: int = 64, heads: int = 4) -> None:
        super().__init__(dim, heads, convolution=4)


class ConvolvedWindow(WindowAttention):
    """Softmax attention to the last 32 tokens, with a short convolution."""

    def __init__(self, dim: int = 64, heads: int = 4, window: int = 32) -> None:
        super().__init__(dim, heads, window=window, convolution=4)


for _slug, _layer, _title, _paper in (
    (
        "softmax-attention",
        ConvolvedAttention,
        "Softmax attention to all tokens",
        "Vaswani et al. 2017",
    ),
    (
        "window-attention",
        ConvolvedWindow,
        "Softmax attention to the last 32 tokens",
        "Beltagy et al. 2020",
    ),
    ("linear-attention", LinearAttention, "Linear attention", "Katharopoulos et al. 2020"),
    ("delta-net", DeltaNet, "DeltaNet", "Schlag et al. 2021; Yang et al. 2024"),
    ("gated-delta-net", GatedDeltaNet, "Gated DeltaNet", "Yang et al. 2025"),
    ("state-space", StateSpace, "Selective state space (Mamba-2)", "Dao & Gu 2024"),
    ("lstm", LSTM, "Long short-term memory", "Hochreiter & Schmidhuber 1997"),
):
    system(
        _slug,
        family="sequence",
        title=_title,
        contract="SequenceLayer",
        paper=_paper,
        baseline=True,
        tasks=(*TASKS, *OTHER_TASKS),
    )(_layer)
