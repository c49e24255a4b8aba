"""The generated world itself, and the claims that make it worth decoding.

Virtual subjects look at rendered scenes. What is found in them is worth something only if it is
neither trivial nor hopeless to find, if each area carries what it is said to carry and nothing
else, if nothing is known before it is seen, and if the noise ceiling is what it is said to be.
"""

from __future__ import annotations

from typing import Any

from engramma.data.recording import Cohort
from engramma.registry import system
from engramma.systems.worlds.worlds_claims import CLAIMS
from engramma.worlds.cohort import cohort


@system(
    "worlds",
    family="worlds",
    title="Virtual brains that look at rendered scenes",
    contract=(),
    claims=CLAIMS,
)
def virtual_brains(seed: int = 0, **options: Any) -> Cohort:
    """Record a cohort of virtual subjects; see `engramma.worlds.cohort.cohort`."""
    return cohort(seed=seed, **options)
