"""Episodes that are watched and then asked about, whatever the world they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Episodes:
    """A batch of episodes with questions at their end.

    Parameters
    ----------
    inputs : ndarray of float32, shape (episode, step, feature)
        What is seen and heard. The last steps hold the questions, one each.
    choices : ndarray of int, shape (episode, choice)
        Ids of what may be answered; they differ from episode to episode.
    asked : ndarray of int, shape (episode, question)
        Which of the choices is right.
    n_answers : int
        Number of ids.
    """

    inputs: np.ndarray
    choices: np.ndarray
    asked: np.ndarray
    n_answers: int

    @property
    def questions(self) -> int:
        """Number of questions, each at one of the last steps."""
        return self.asked.shape[1]

    @property
    def chance(self) -> float:
        """Accuracy of guessing among the choices."""
        return 1 / self.choices.shape[1]

    def of_choices(self, scores: np.ndarray) -> np.ndarray:
        """Scores of the choices out of those of all answers, episode x question x choice."""
        shape = (*self.asked.shape, self.choices.shape[1])
        return np.take_along_axis(scores, np.broadcast_to(self.choices[:, None], shape), axis=2)

    def correct(self, scores: np.ndarray) -> np.ndarray:
        """Whether the best scored choice is the right one.

        Parameters
        ----------
        scores : ndarray, shape (episode, question, answer)

        Returns
        -------
        ndarray of bool, shape (episode, question)
        """
        return self.of_choices(scores).argmax(axis=2) == self.asked
