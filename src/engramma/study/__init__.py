"""One recording explained: ceiling, encoding, decoding and geometry. Callable: ``study(data)``."""

from engramma.callables import make_callable

make_callable(__name__, "engramma.study.study", "study")
