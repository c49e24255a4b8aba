"""Words that the sentences of `engramma.probing.concepts` are made of."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


POSITIVE = _words(
    """wonderful delightful excellent superb marvellous brilliant charming lovely splendid fantastic
    amazing beautiful enjoyable pleasant impressive fascinating gorgeous magnificent terrific great
    perfect inspiring refreshing remarkable outstanding exquisite fabulous thrilling touching fun
    glorious heavenly joyful graceful exceptional admirable captivating stunning satisfying sublime
    elegant uplifting engaging flawless awesome nice cheerful cosy memorable spectacular tasteful
    heartwarming good fine enchanting masterful rewarding divine witty phenomenal"""
)
NEGATIVE = _words(
    """terrible awful horrible dreadful boring dull disgusting disappointing ugly nasty
    lousy miserable unpleasant annoying tedious pathetic mediocre appalling atrocious bad
    worthless depressing dismal ghastly hideous irritating painful poor shoddy stupid
    tiresome unbearable vile wretched abysmal clumsy lame offensive pointless repulsive
    ridiculous sloppy tasteless horrid inferior bland forgettable frustrating grim messy
    revolting shabby disastrous unwatchable insulting lifeless useless rotten hopeless faulty
    """
)
SCENES = (
    "The film",
    "The book",
    "The meal",
    "The hotel",
    "The concert",
    "Our trip",
    "The play",
    "The song",
    "The weather",
    "The service",
    "The speech",
    "The party",
)
NAMES = (
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Julia",
    "Kevin",
    "Laura",
    "Martin",
)


def _pairs(text: str) -> dict[str, str]:
    return dict(
        pair.strip().split("/") for pair in text.replace("\n", ",").split(",") if pair.strip()
    )


NOUNS = _pairs(
    """child/children, mouse/mice, man/men, woman/women, foot/feet, tooth/teeth, wolf/wolves,
    leaf/leaves, knife/knives, city/cities, baby/babies, box/boxes, bus/buses, church/churches,
    dog/dogs, cat/cats, book/books, tree/trees, house/houses, river/rivers, country/countries,
    table/tables, letter/letters, friend/friends, song/songs, flower/flowers, horse/horses,
    story/stories, berry/berries, window/windows, teacher/teachers, apple/apples, car/cars,
    bird/birds, ship/ships, road/roads, mountain/mountains, boy/boys, girl/girls, door/doors,
    chair/chairs, garden/gardens, island/islands, bridge/bridges, lake/lakes, star/stars,
    farmer/farmers, doctor/doctors, student/students, picture/pictures, shirt/shirts, coat/coats,
    bottle/bottles, hill/hills, village/villages, soldier/soldiers, queen/queens, egg/eggs,
    key/keys, lamp/lamps"""
)
VERBS = _pairs(
    """go home./went home., see the house./saw the house., eat bread./ate bread.,
    run to school./ran to school., come late./came late., give money./gave money.,
    take the bus./took the bus., make soup./made soup., write letters./wrote letters.,
    speak slowly./spoke slowly., sing songs./sang songs., swim in the lake./swam in the lake.,
    drink tea./drank tea., drive to work./drove to work., fly kites./flew kites.,
    buy fruit./bought fruit., think about it./thought about it., teach music./taught music.,
    catch fish./caught fish., sleep well./slept well., build a boat./built a boat.,
    walk to town./walked to town., talk a lot./talked a lot., play chess./played chess.,
    work hard./worked hard., jump high./jumped high., look around./looked around.,
    help the neighbours./helped the neighbours., open the door./opened the door.,
    cook dinner./cooked dinner., learn French./learned French., dance all night./danced all night.,
    sell flowers./sold flowers., tell stories./told stories., find old coins./found old coins.,
    hold hands./held hands., leave early./left early., lose the game./lost the game.,
    meet friends./met friends., pay the bill./paid the bill., ride horses./rode horses.,
    send parcels./sent parcels., stand in line./stood in line., steal apples./stole apples.,
    throw stones./threw stones., wake up early./woke up early., wear hats./wore hats.,
    win prizes./won prizes., break the rules./broke the rules., draw pictures./drew pictures.,
    feed the birds./fed the birds., feel tired./felt tired., fight again./fought again.,
    forget the keys./forgot the keys., grow potatoes./grew potatoes., hear music./heard music.,
    hide the box./hid the box., keep the money./kept the money., know the answer./knew the answer.,
    paint the wall./painted the wall."""
)
