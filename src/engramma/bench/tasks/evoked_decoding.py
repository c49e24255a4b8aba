"""Tell what kind of object is seen from an evoked response over sensors and time."""

from __future__ import annotations

from engramma.bench.tasks.scene_decoding import Classes, held_out_classes, score
from engramma.contracts import Task
from engramma.registry import add_task
from engramma.worlds.objects import SUPERORDINATES

N_STIMULI, N_REPEATS, SFREQ, STOP, SNR = 120, 4, 50.0, 0.6, 1.5


def prepare(seed: int) -> Classes:
    """Record 32 sensors at 50 Hz while 120 scenes are shown four times."""
    from engramma.worlds.evoked import evoked

    recording = evoked(
        seed, n_stimuli=N_STIMULI, n_repeats=N_REPEATS, sfreq=SFREQ, stop=STOP, snr=SNR
    )
    return held_out_classes(recording, seed)


add_task(
    Task(
        name="evoked-decoding",
        contract="Decoder",
        description="Which superordinate class does an object belong to, from its evoked "
        "response (sensor x time)?",
        prepare=prepare,
        score=score,
        metric="balanced accuracy (scenes held out, five folds)",
        chance=1 / len(SUPERORDINATES),
    )
)
