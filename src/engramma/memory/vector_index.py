"""Nearest vectors by inner product: exactly, or by the graph of a vector index.

`ExactIndex` compares the query with every vector and needs nothing but numpy. `GraphIndex` walks a
graph of neighbours (HNSW, from the library faiss) to candidates and ranks these exactly, so that
scores are always exact and only candidates may be missed.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np

from engramma.errors import ConfigError, DataError, MissingPackageError

#: How vectors are searched.
IndexKind = Literal["exact", "graph"]


class VectorIndex(Protocol):
    """Vectors that are added one after the other and numbered from 0."""

    def __len__(self) -> int:
        """Return how many vectors there are."""
        ...

    @property
    def vectors(self) -> np.ndarray:
        """All vectors, vector x feature."""
        ...

    def add(self, vectors: np.ndarray) -> None:
        """Append vectors (vector x feature)."""
        ...

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers and inner products of the ``k`` vectors most like ``query``, best first.

        Of equals the earlier one comes first. Fewer are returned where there are fewer.
        """
        ...


class ExactIndex:
    """All inner products, computed.

    Parameters
    ----------
    width : int
        Features of a vector.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._room = np.empty((0, width), dtype=np.float32)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def vectors(self) -> np.ndarray:
        """All vectors, vector x feature."""
        return self._room[: self._length]

    def add(self, vectors: np.ndarray) -> None:
        """Append vectors; room doubles when it runs out, so that adding stays cheap."""
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise DataError(
                f"vectors have shape {vectors.shape}, and the index holds {self.width} features",
                where="vector index",
                mend="add an array of vector x feature",
            )
        needed = self._length + len(vectors)
        if needed > len(self._room):
            room = np.empty((max(needed, 2 * len(self._room)), self.width), dtype=np.float32)
            room[: self._length] = self.vectors
            self._room = room
        self._room[self._length : needed] = vectors
        self._length = needed

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Compare with all vectors."""
        return _best(np.arange(self._length), self.vectors @ query.astype(np.float32), k)


class GraphIndex(ExactIndex):
    """Hierarchical navigable small world graph; its candidates are ranked exactly.

    Parameters
    ----------
    width : int
    links : int
        Neighbours of a node.
    effort : int
        Nodes kept in view while a vector is added.
    candidates : int
        Nodes kept in view while searching, at least; more cost time and find more.
    """

    def __init__(
        self, width: int, *, links: int = 32, effort: int = 128, candidates: int = 256
    ) -> None:
        super().__init__(width)
        faiss = _faiss()
        self.candidates = candidates
        self._graph = faiss.IndexHNSWFlat(width, links, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = effort

    def add(self, vectors: np.ndarray) -> None:
        """Append vectors and link them into the graph."""
        super().add(vectors)
        self._graph.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Walk the graph, then rank what was met."""
        width = min(max(k, self.candidates), self._length)
        self._graph.hnsw.efSearch = width
        found = self._graph.search(query.astype(np.float32)[None], width)[1][0]
        found = np.sort(found[found >= 0])
        return _best(found, self.vectors[found] @ query.astype(np.float32), k)


def vector_index(kind: IndexKind, width: int) -> ExactIndex:
    """Return an empty index.

    Raises
    ------
    ConfigError
        If ``kind`` is unknown, or needs a library that is not installed.
    """
    if kind not in ("exact", "graph"):
        raise ConfigError(f"there is no index {kind!r}", where="index", mend="say exact or graph")
    return ExactIndex(width) if kind == "exact" else GraphIndex(width)


def _best(numbers: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``k`` largest scores, largest first, of equals the first."""
    if k < len(scores):
        chosen = np.sort(np.argpartition(-scores, k - 1)[:k]) if k > 0 else np.arange(0)
        numbers, scores = numbers[chosen], scores[chosen]
    order = np.argsort(-scores, kind="stable")
    return numbers[order], scores[order]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError(
            "the graph index needs faiss",
            where="index",
            mend="pip install 'engramma[index]', or use index='exact'",
        ) from error
    return faiss
