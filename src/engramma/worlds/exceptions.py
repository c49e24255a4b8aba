"""Words that are not spoken as they are spelt, and words that are spoken without an accent."""

from __future__ import annotations

#: Words and their phonemes (ARPABET), parted by semicolons; rules cover all others.
EXCEPTIONS = """
above AX B AH V; adam AE D AX M; aeroplane EH R AX P L EY N; an AX N; answer AE N S ER;
april EY P R AX L; are AA R; august AO G AX S T; bakery B EY K ER IY; banana B AX N AE N AX;
basket B AE S K IH T; bear B EH R; been B IH N; before B IH F AO R; behind B IH HH AY N D;
below B IH L OW; bicycle B AY S IH K AX L; break B R EY K; broken B R OW K AX N;
brother B R AH DH ER; buried B EH R IY D; cairo K AY R OW; carpenter K AA R P AX N T ER;
carrot K AE R AX T; castle K AE S AX L; cellar S EH L ER; cello CH EH L OW; child's CH AY L D Z;
cocoa K OW K OW; coffee K AO F IY; colour K AH L ER; come K AH M; comes K AH M Z;
cupboard K AH B ER D; damaged D AE M IH JH D; david D EY V IH D; delhi D EH L IY;
discovered D IH S K AH V ER D; do D UW; does D AH Z; done D AH N; drawer D R AO R;
elephant EH L IH F AX N T; eleven IH L EH V AX N; enough IH N AH F; evening IY V N IH NG;
explained IH K S P L EY N D; eye AY; eyes AY Z; father F AA DH ER; favourite F EY V R IH T;
felix F IY L IH K S; food F UW D; foot F UH T; forest F AO R IH S T; four F AO R;
friday F R AY D EY; friend F R EH N D; from F R AH M; front F R AH N T; giraffe JH IH R AE F;
give G IH V; gone G AO N; grey G R EY; happened HH AE P AX N D; harbour HH AA R B ER; have HH AE V;
heart HH AA R T; hour AW ER; hugo HH Y UW G OW; i AY; ida AY D AX; into IH N T UW;
island AY L AX N D; ivan AY V AX N; january JH AE N Y UW EH R IY; jonas JH OW N AX S;
juice JH UW S; julia JH UW L Y AX; july JH UW L AY; kyoto K IY OW T OW; laugh L AE F;
lena L IY N AX; leo L IY OW; library L AY B R EH R IY; lima L IY M AX; lion L AY AX N;
lived L IH V D; love L AH V; lower L OW ER; man's M AE N Z; market M AA R K IH T;
medium M IY D IY AX M; minute M IH N IH T; monday M AH N D EY; month M AH N TH; mother M AH DH ER;
mountains M AW N T AX N Z; museum M Y UW Z IY AX M; nineteen N AY N T IY N; ninety N AY N T IY;
noah N OW AX; nobody N OW B AA D IY; of AX V; offered AO F ER D; office AO F IH S; olga OW L G AX;
one W AH N; only OW N L IY; onto AA N T UW; orange AO R IH N JH; oscar AO S K ER; oslo AA Z L OW;
other AH DH ER; own OW N; owns OW N Z; people P IY P AX L; piano P IY AE N OW; pizza P IY T S AX;
quebec K W IH B EH K; question K W EH S CH AX N; remembered R IH M EH M B ER D; repair R IH P EH R;
repaired R IH P EH R D; returned R IH T ER N D; rosa R OW Z AX; said S EH D; says S EH Z;
scissors S IH Z ER Z; seventeen S EH V AX N T IY N; seventy S EH V AX N T IY; shaken SH EY K AX N;
shoe SH UW; simon S AY M AX N; sofia S OW F IY AX; some S AH M; somewhere S AH M W EH R;
sugar SH UH G ER; swallowed S W AA L OW D; taken T EY K AX N; talking T AO K IH NG; than DH AE N;
that DH AE T; the DH AX; theatre TH IY AX T ER; their DH EH R; then DH EH N; there DH EH R;
they DH EY; this DH IH S; thursday TH ER Z D EY; tiger T AY G ER; to T UW; tomato T AX M EY T OW;
tongue T AH NG; trumpet T R AH M P IH T; tuesday T UW Z D EY; two T UW; vera V IH R AX;
violin V AY AX L IH N; walked W AO K T; water W AO T ER; wednesday W EH N Z D EY; were W ER;
what W AA T; where W EH R; who HH UW; whose HH UW Z; wind W IH N D; with W IH DH; wolf W UH L F;
woman W UH M AX N; woman's W UH M AX N Z; women W IH M IH N; you Y UW; your Y AO R;
zebra Z IY B R AX; zoe Z OW IY
"""

#: Words that carry no accent and are spoken quickly.
FUNCTION_WORDS = """
a an the of to in on at by for from with and or but is are was were has have had it he she that
than this his her there as be been do does did
"""
