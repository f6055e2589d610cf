"""The words that generated texts are made of."""

from random import Random


def _words(*lines: str) -> list[str]:
    return " ".join(lines).split()


ADJECTIVES = _words(
    "amber ancient arctic autumn bitter bold brave brisk broad bronze calm careful clever cloudy coastal copper",
    "coral cosmic crimson crystal curious daring distant dusty eager early eastern elder emerald endless faint",
    "famous fancy fearless fierce floral foggy fresh frosty gentle giant gilded glassy golden graceful grand",
    "green hidden hollow humble icy idle ivory jolly keen kind lavish lively lonely loyal lucky lunar marble",
    "mellow merry mighty misty modest narrow noble northern olive opal orange pale patient plain polite proud",
    "purple quick quiet rapid rare restless rosy royal rugged rustic sandy scarlet secret serene shady sharp",
    "silent silver simple sleepy slender smooth snowy solar solid southern steady stormy sturdy subtle sunny",
    "swift tall tender tidy tiny vivid wandering warm western wild windy wise wooden young",
)
"""Of things."""

NOUNS = _words(
    "acorn anchor apple arrow badger barn basket beacon beaver bell bench birch boat bottle bridge bucket",
    "butterfly cabin camel candle canyon castle cedar cellar chapel cherry chimney circle cliff clock cloud",
    "compass cottage cradle crane creek cricket crown daisy desert dolphin dragon drum eagle engine falcon farm",
    "feather fence ferry field finch flame flute forest fountain fox garden gate glacier goose granite grove",
    "hammer harbor hawk hedge heron hill horse island jacket kettle kite ladder lagoon lake lantern lemon lily",
    "lion lizard maple market meadow melon mill mirror moon mountain mushroom needle nest oak ocean orchard otter",
    "owl paddle panther parrot path pebble pepper piano pillow pine planet plum pocket pond poppy prairie puffin",
    "quarry rabbit raven reef ribbon ridge river robin rocket rope saddle salmon school shell shovel sparrow",
    "spoon spring stable station stone stove summit swan table temple thistle thunder tiger tower trail train",
    "tulip tunnel turtle valley village violin wagon walnut water whale wheel willow window wolf",
)
"""Things."""

NAMES = _words(
    "Ada Amir Anna Bela Boris Carla Chen Clara Dario Dora Edith Elias Emma Farid Felix Flora Greta Hana Hugo Ida",
    "Igor Ines Ivan Jonas Julia Kaito Karim Lena Leo Lina Luca Mara Marek Mina Nadia Nils Nora Olga Omar Otto",
    "Paula Pavel Petra Quinn Rafael Rosa Ruth Samir Selma Simon Sofia Tara Theo Tomas Uma Vera Victor Wanda Yara",
    "Yusuf Zora",
)
"""Of people."""

PLACES = (
    "the bakery",
    "the bookshop",
    "the bus station",
    "the city hall",
    "the corner of the park",
    "the fish market",
    "the garage",
    "the kitchen",
    "the library",
    "the lighthouse",
    "the museum",
    "the old harbor",
    "the post office",
    "the school yard",
    "the town square",
    "the train station",
    "the upper meadow",
    "the workshop",
)
"""Where things happen."""


def draw_pairs(rng: Random, count: int) -> list[str]:
    """Different things with an adjective, as ``amber-falcon``.

    Args:
        rng: Draws them.
        count: How many; at most the product of the two lists' lengths.
    """
    places = rng.sample(range(len(ADJECTIVES) * len(NOUNS)), count)
    return [f"{ADJECTIVES[place % len(ADJECTIVES)]}-{NOUNS[place // len(ADJECTIVES)]}" for place in places]
