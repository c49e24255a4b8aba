"""Model cards: what a shipped miniature is, how it was trained, and how good it is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch


def write_card(
    weights: Path, title: str, recipe: str, quality: Mapping[str, float], held_out: str = ""
) -> None:
    """Write ``NAME.md`` beside ``NAME.safetensors`` and print the measured quality."""
    held_out = held_out or (
        "1000 scenes whose first objects are pairs of category and colour that no training scene "
        "shows"
    )
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in quality.items()
    )
    script = Path(sys.argv[0]).name
    megabytes = weights.stat().st_size / 1e6
    weights.with_suffix(".md").write_text(
        f"# {title}\n\n"
        f"- Weights: `{weights.name}`, {megabytes:.1f} MB, half precision.\n"
        f"- Made by `scripts/{script}` with torch {torch.__version__.split('+')[0]}.\n"
        f"- Recipe: {recipe}.\n"
        f"- Held out: {held_out}.\n\n"
        f"| measured on what was held out, after rounding | |\n|---|---|\n{rows}\n\n"
        "It knows the generated world and nothing else: use a real model on real data.\n"
    )
    print({name: round(value, 4) for name, value in quality.items()}, flush=True)
