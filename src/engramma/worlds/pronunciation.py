"""From English spelling to phonemes: letter-to-sound rules, and a table of exceptions.

The design is that of Elovitz et al. ("Letter-to-sound rules for automatic translation of English
text to phonetics", IEEE Trans. ASSP 24, 1976): rules are tried in order at each place of a word,
and the first that fits gives the phonemes of the letters it covers. They are rules for the words
of the captions and stories; any other word gets a plausible pronunciation.
"""

from __future__ import annotations

import re
from functools import cache

from engramma.errors import DataError
from engramma.worlds import exceptions
from engramma.worlds.phonemes import PHONEMES

#: Words that carry no accent and are spoken quickly.
FUNCTION_WORDS = frozenset(exceptions.FUNCTION_WORDS.split())

#: A place of the word, and what the letters that it covers stand for. The word's ends are spaces.
#: C is any consonant letter, D one that stands for a single sound.
_RULES = """
'         :
 kn       : N
 wr       : R
 wh(?=o)  : HH
wh        : W
ph        : F
ght       : T
(?<=[ei])gh : 
gh(?= )   : F
gh        : G
tch       : CH
 sch      : S K
ch(?=r|l) : K
ch        : CH
sh        : SH
(?<=[aeiou])s(?=ure) : ZH
ssi(?=on) : SH
si(?=on)  : ZH
ti(?=on|al) : SH
t(?=ure)  : CH
ci(?=al|an|ous) : SH
th(?=er |ese |ose |us |ough ) : DH
th        : TH
ck        : K
dge(?= )  : JH
dg        : JH
ng(?=[lr]) : NG G
ng(?=e[dr]? ) : N JH
ng        : NG
n(?=[kx]) : NG
qu        : K W
gu(?=[eiay]) : G
sc(?=[eiy]) : S
mb(?= )   : M
mn(?= )   : M
(?<= )x   : Z
x         : K S
(?<=[aeioylnrw])s(?= ) : Z
(?<=[bdgvm])s(?= )  : Z
(?<=[aeo])s(?=e )  : Z
(?<=[szx])es(?= ) : IH Z
(?<=ch)es(?= ) : IH Z
(?<=sh)es(?= ) : IH Z
(?<=[td])ed(?= ) : IH D
(?<=[pkfcxs])ed(?= ) : T
(?<=sh)ed(?= ) : T
(?<=ch)ed(?= ) : T
(?<=[aeiouy]C)ed(?= ) : D
(?<=[aeiouy]CC)ed(?= ) : D
(?<=[aeo]y)ed(?= ) : D
(?<=C)le(?= ) : AX L
(?<=C)les(?= ) : AX L Z
tt        : T
bb        : B
dd        : D
ff        : F
gg        : G
ll        : L
mm        : M
nn        : N
pp        : P
rr        : R
ss        : S
zz        : Z
cc(?=[eiy]) : K S
cc        : K
c(?=[eiy]) : S
c         : K
g(?=e )   : JH
(?<! )g(?=[eiy]) : JH
j         : JH
ye(?= )   : AY
 y        : Y
air       : EH R
are(?= )  : EH R
arr       : AE R
(?<=[wu])ar : AO R
ar(?=[iaeou]) : EH R
ar        : AA R
augh      : AO
all       : AO L
al(?=[kdt]) : AO L
(?<=[^ ]{3})ai(?=n ) : AX
ai        : EY
ay        : EY
au        : AO
aw        : AO
(?<= w)a(?=[tshnld]) : AA
(?<=[aeiou]C)a(?=ge ) : IH
(?<=[aeiou]CC)a(?=ge ) : IH
a(?=nge)  : EY
a(?=ste)  : EY
a(?=ble)  : EY
a(?=D(e|es|er|ers|ed|ing|ion) ) : EY
a(?=ti)   : EY
a(?=CC?y ) : EY
a(?= )    : AX
(?<= )a(?=C[aeiou]) : AX
(?<=[^ ]{3})a(?=[nlr]s? ) : AX
a         : AE
eer       : IH R
ear(?=C)  : ER
ear       : IH R
ere(?= )  : IH R
er(?=[aeiy]) : EH R
er        : ER
eau       : OW
ea(?=d |lth|ther) : EH
ea        : IY
ee        : IY
eigh      : EY
ei        : IY
ew        : UW
ey(?= )   : IY
eu        : UW
eo        : IY AX
e(?=Ce )  : IY
(?<= C)e(?= ) : IY
(?<= CC)e(?= ) : IY
(?<=v)e(?=n ) : AX
(?<=[^ ]{3})e(?=[nl][ts]? ) : AX
e(?= )    :
(?<=[^ ]{2})e(?=s ) :
e(?=t[ey]) :
e(?=ful|less|ly|ment) :
e         : EH
ire       : AY ER
ir        : ER
igh       : AY
ign(?= )  : AY N
(?<= C)ie(?=[sd]? ) : AY
ie        : IY
i(?=nd )  : AY
i(?=ld )  : AY
i(?=D(e|es|er|ers|ed|ing) ) : AY
i(?=C(le|re) ) : AY
ia        : IY AX
io(?=n )  : AX
io        : IY OW
iou       : IY AX
i(?= )    : IY
i         : IH
oar       : AO R
oor       : AO R
ore       : AO R
(?<= w)or : ER
(?<=[^ ]{2})or(?= ) : ER
or        : AO R
oo(?=k)   : UH
oo(?=d )  : UH
oo        : UW
ough(?=t) : AO
ough      : OW
oul(?=d)  : UH
our(?=C) : AO R
our       : AW ER
ous(?= )  : AX S
ou        : AW
(?<=[^ ][rldn])ow(?= ) : OW
(?<= [lrbtms])ow(?= ) : OW
ow(?=s |ing) : OW
(?<=[gnk])ow(?=n ) : OW
ow        : AW
oy        : OY
oi        : OY
oa        : OW
oe(?=s? ) : OW
old       : OW L D
oll(?= )  : OW L
ol(?=t)   : OW L
ost(?= )  : OW S T
o(?=D(e|es|er|ers|ed|ing|o) ) : OW
o(?= )    : OW
(?<=[^ ]{3})o(?=[nm]s? ) : AX
o(?=Ca )  : OW
o(?=ti)   : OW
o         : AA
ure(?= )  : ER
urr       : ER
ur        : ER
ui(?=t)   : UW
uy        : AY
ue(?=[sd]? ) : UW
u(?=D(e|es|er|ers|ed|ing|ic|ia) ) : UW
(?<= p)u(?=[lt]) : UH
u(?= )    : UW
u(?=ni)   : Y UW
(?<=[^ ]{3})u(?=[ms] ) : AX
u         : AH
yr        : ER
(?<= C)y(?= ) : AY
(?<= CC)y(?= ) : AY
y(?= )    : IY
y(?=[aeou]) : Y
y(?=Ce )  : AY
y         : IH
b : B
d : D
f : F
g : G
h(?= ) :
h : HH
k : K
l : L
m : M
n : N
p : P
r : R
s : S
t : T
v : V
w : W
z : Z
"""


_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
"""


@cache
def _rules() -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
    rules = []
    for line in filter(None, _RULES.splitlines()):
        pattern, _, said = line.rpartition(":")
        # Blanks pad the table's column, but inside a pattern and at its start mean a word's end.
        pattern = pattern.rstrip().replace("C", "[bcdfghjklmnpqrstvwxz]")
        pattern = pattern.replace("D", "[bcdfgjklmnpqrstvz]")
        # The blank in front of a word is a place of its own, which no rule covers.
        pattern = f"(?<= ){pattern[1:]}" if pattern.startswith(" ") else pattern
        rules.append((re.compile(pattern), tuple(said.split())))
    return rules


@cache
def _exceptions() -> dict[str, tuple[str, ...]]:
    entries = (entry.split() for entry in exceptions.EXCEPTIONS.split(";"))
    return {word: tuple(said) for word, *said in entries}


def words(text: str) -> list[str]:
    """Split a text into lower-case words, with numbers (0 .. 99) in words, and ``,`` ``.`` ``?``.

    Other signs are passed over; ``!``, ``;`` and ``:`` count as stops.

    Raises
    ------
    DataError
        If there is a number above 99.
    """
    found: list[str] = []
    for token in re.findall(
        r"[a-z]+(?:'[a-z]+)?|\d+|[,.?!;:]", text.lower().replace("\u2019", "'")
    ):
        if token.isdigit():
            found += _number(int(token))
        else:
            found.append("." if token in "!;:" else token)
    return found


def _number(value: int) -> list[str]:
    if value > 99:
        raise DataError(
            f"the number {value} cannot be spoken", where="text", mend="write it in words"
        )
    names = _NUMBERS.split()
    if value <= 20:
        return [names[value]]
    tens, ones = divmod(value, 10)
    return [names[18 + tens], *([names[ones]] if ones else [])]


@cache
def pronounce(word: str) -> tuple[str, ...]:
    """Return the phonemes of one word.

    Parameters
    ----------
    word : str
        Letters of the Latin alphabet, and an apostrophe inside.

    Raises
    ------
    DataError
        If it holds no letter that can be spoken.
    """
    word = word.lower()
    if word in _exceptions():
        return _exceptions()[word]
    stem = word.removesuffix("s").removesuffix("'")
    if stem != word and stem in _exceptions():
        return (*_exceptions()[stem], *_plural(_exceptions()[stem][-1]))
    said: list[str] = []
    padded, place = f" {word} ", 1
    while place <= len(word):
        for pattern, phonemes in _rules():
            match = pattern.match(padded, place)
            if match and match.end() > place:
                said += phonemes
                place = match.end()
                break
        else:
            raise DataError(
                f"the sign {padded[place]!r} cannot be spoken",
                where=f"word {word!r}",
                mend="write it with the letters a to z",
            )
    said = _merged(said)
    if not any(PHONEMES[p].vowel for p in said):  # an abbreviation
        said = ["AX", *said]
    return tuple(said)


def _plural(last: str) -> tuple[str, ...]:
    """Return what the ending -s sounds like after a phoneme."""
    if last in ("S", "Z", "SH", "ZH", "CH", "JH"):
        return "IH", "Z"
    return ("Z" if PHONEMES[last].voiced else "S",)


def _merged(phonemes: list[str]) -> list[str]:
    """Drop a phoneme that repeats the one before it."""
    return [p for i, p in enumerate(phonemes) if i == 0 or p != phonemes[i - 1]]
