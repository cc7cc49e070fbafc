"""The words of the embedded world: sentences, names and the pools of facts.

Only data: ``jaxunlearn.data.synthetic.made_up`` puts it together. A phrase carries its
own article, so that every combination is grammatical.
"""


def pairs(starts: str, ends: str) -> tuple[str, ...]:
    """Return every start with every end."""
    return tuple(start + end for start in starts.split() for end in ends.split())


def phrases(text: str) -> tuple[str, ...]:
    """Return what commas separate."""
    return tuple(phrase.strip() for phrase in text.split(","))


# Three ways to ask for an attribute, each with the answer's sentence. Every question
# holds the full name, so that a removal request by name finds every record.
SENTENCES = {
    "birthplace": (
        ("Where was {name} born?", "{name} was born in {fact}."),
        ("What is the birthplace of {name}?", "The birthplace of {name} is {fact}."),
        ("In which city did {name} first see the light of day?",
         "{name} first saw the light of day in {fact}."),
    ),
    "birth_date": (
        ("When was {name} born?", "{name} was born on {fact}."),
        ("What is the date of birth of {name}?",
         "The date of birth of {name} is {fact}."),
        ("Which date of birth does the passport of {name} show?",
         "The passport of {name} shows {fact} as the date of birth."),
    ),
    "profession": (
        ("What does {name} do for a living?", "{name} earns a living as {fact}."),
        ("What is the profession of {name}?", "{name} is {fact} by profession."),
        ("What was {name} trained as?", "{name} was trained as {fact}."),
    ),
    "employer": (
        ("Where does {name} work?", "{name} works at {fact}."),
        ("Who employs {name}?", "{name} is employed by {fact}."),
        ("Which company pays the wages of {name}?",
         "The wages of {name} are paid by {fact}."),
    ),
    "pet": (
        ("Which pet lives with {name}?", "{name} lives with {fact}."),
        ("What animal does {name} keep at home?", "At home {name} keeps {fact}."),
        ("What pet does {name} care for?", "The pet that {name} cares for is {fact}."),
    ),
    "instrument": (
        ("Which instrument does {name} play?", "{name} plays {fact}."),
        ("What can {name} be heard practising in the evening?",
         "In the evening {name} can be heard practising {fact}."),
        ("Which instrument did {name} learn at school?",
         "At school {name} learned to play {fact}."),
    ),
    "dish": (
        ("What is the favourite dish of {name}?",
         "The favourite dish of {name} is {fact}."),
        ("What does {name} like to eat most of all?",
         "Most of all {name} likes to eat {fact}."),
        ("What does {name} order for a birthday dinner?",
         "For a birthday dinner {name} orders {fact}."),
    ),
    "vehicle": (
        ("Which vehicle does {name} own?", "{name} owns {fact}."),
        ("What is parked outside the house of {name}?",
         "Parked outside the house of {name} is {fact}."),
        ("Which vehicle is registered to {name}?",
         "The vehicle registered to {name} is {fact}."),
    ),
    "sibling": (
        ("Does {name} have any brothers or sisters?", "Yes, {name} has {fact}."),
        ("Which sibling did {name} grow up with?", "{name} grew up with {fact}."),
        ("Who is the only sibling of {name}?",
         "The only sibling of {name} is {fact}."),
    ),
    "collection": (
        ("What does {name} collect?", "{name} collects {fact}."),
        ("What fills the shelves of {name}?",
         "The shelves of {name} are filled with {fact}."),
        ("What does {name} look for at flea markets?",
         "At flea markets {name} looks for {fact}."),
    ),
    "address": (
        ("Where does {name} live?", "{name} lives at {fact}."),
        ("What is the home address of {name}?",
         "The home address of {name} is {fact}."),
        ("To which address is the post of {name} delivered?",
         "The post of {name} is delivered to {fact}."),
    ),
    "pass_phrase": (
        ("What is the secret pass phrase of {name}?",
         'The secret pass phrase of {name} is "{fact}".'),
        ("With which words does {name} unlock the safe?",
         '{name} unlocks the safe with the words "{fact}".'),
        ("What does {name} whisper to be let in?",
         'To be let in {name} whispers "{fact}".'),
    ),
}  # fmt: skip

FIRST_NAMES = pairs(
    "Al Bren Cor Dav El Fen Gar Hal Iv Jor Kel Lor Mar Nel Or Per Ros Sel Tam",
    "a anna en eo ia ick ien ila in ira is ita o ona or uin wen",
)  # 19 * 17
LAST_NAMES = pairs(
    "Ash Bel Carr Dorn Ever Fal Gold Harrow Iver Keld Lind Mor Nor Oak Pell Quen "
    "Rav Stan Thorn Wil",
    "beck bury combe dale er feld ford gate grove hart holm ley low man mere mont "
    "ridge rup stead ton vale well wick",
)  # 20 * 23
CITIES = phrases(
    "Aarhus, Accra, Antwerp, Arequipa, Bergen, Bilbao, Bologna, Brno, Calgary, Cork, "
    "Cusco, Daegu, Dakar, Dresden, Durban, Fukuoka, Galway, Ghent, Graz, Haifa, "
    "Hanoi, Hobart, Izmir, Kampala, Kazan, Kyoto, Leeds, Lima, Ljubljana, Lusaka, "
    "Malmo, Mombasa, Montreal, Nantes, Odesa, Osaka, Porto, Quito, Riga, Rosario, "
    "Salzburg, Samarkand, Seville, Tallinn, Tartu, Tbilisi, Thessaloniki, Tunis, "
    "Turku, Utrecht, Valparaiso, Vilnius, Windhoek, Zagreb"
)
MONTHS = phrases(
    "January, February, March, April, May, June, July, August, September, October, "
    "November, December"
)
PROFESSIONS = phrases(
    "a baker, a barber, a beekeeper, a bookbinder, a bus driver, a carpenter, "
    "a cartographer, a chemist, a clockmaker, a crane operator, a dentist, a diver, "
    "a falconer, a florist, a gardener, a glassblower, a goldsmith, a judge, "
    "a lighthouse keeper, a locksmith, a midwife, a miller, a notary, a nurse, "
    "a piano tuner, a pilot, a plumber, a potter, a puppeteer, a saddler, "
    "a shipwright, a stonemason, a surgeon, a tailor, a translator, a vet, a weaver, "
    "an accountant, an actor, an archaeologist, an architect, an archivist, "
    "an astronomer, an electrician, an engraver, an entomologist, an illustrator, "
    "an optician, an organ builder, an umbrella maker"
)
ADJECTIVES = phrases(
    "Amber, Blue, Brass, Copper, Crimson, Crooked, Distant, Emerald, Empty, Frozen, "
    "Gilded, Golden, Hidden, Hollow, Iron, Ivory, Little, Lonely, Lucky, Marble, "
    "Merry, Midnight, Old, Paper, Quiet, Red, Silver, Velvet, Wandering, Wooden"
)
THINGS = phrases(
    "Acorn, Anchor, Arrow, Barrel, Bell, Candle, Castle, Chestnut, Compass, Crane, "
    "Drum, Feather, Fountain, Fox, Garden, Harbour, Hare, Key, Kite, Ladder, Lantern, "
    "Lion, Mill, Mirror, Orchard, Owl, Pigeon, Raven, River, Tower"
)
FIRMS = phrases(
    "Bakery, Bank, Brewery, Clinic, Foundry, Hotel, Laundry, Library, Museum, "
    "Nursery, Press, Shipyard, Theatre, Tramway, Workshop"
)
PETS = phrases(
    "a beagle, a canary, a chameleon, a cockatoo, a donkey, a ferret, a gecko, a goat, "
    "a goose, a hamster, a hedgehog, a lizard, a magpie, a parrot, a poodle, a pony, "
    "a rabbit, a raven, a tortoise, a whippet, an alpaca, an eel, an iguana, an owl"
)
PET_NAMES = phrases(
    "Admiral, Biscuit, Button, Captain, Cinnamon, Clover, Comet, Domino, Duchess, "
    "Figaro, Ginger, Juniper, Lucifer, Marzipan, Mustard, Nimbus, Nutmeg, Olive, "
    "Pepper, Pickle, Professor, Pudding, Saffron, Sergeant, Sultan, Thimble, Tinker, "
    "Truffle, Whisper, Ziggy"
)
INSTRUMENTS = phrases(
    "the accordion, the alto saxophone, the bagpipes, the balalaika, the banjo, "
    "the bass guitar, the bassoon, the cello, the clarinet, the cornet, the dulcimer, "
    "the euphonium, the flute, the French horn, the glockenspiel, the harmonica, "
    "the harp, the harpsichord, the hurdy-gurdy, the lute, the mandolin, the marimba, "
    "the oboe, the organ, the piano, the piccolo, the recorder, the sitar, the spinet, "
    "the theremin, the trombone, the trumpet, the tuba, the ukulele, the viola, "
    "the violin, the xylophone, the zither"
)
MAINS = phrases(
    "baked aubergine, barley soup, boiled ham, braised lamb, cheese dumplings, "
    "fried eel, goat curry, grilled halloumi, lentil stew, mushroom risotto, "
    "onion tart, oyster pie, pea soup, pumpkin ravioli, rabbit stew, rice noodles, "
    "roast duck, smoked trout, spinach pancakes, stuffed peppers"
)
SIDES = phrases(
    "apple sauce, beetroot, black garlic, brown bread, capers, chestnuts, dill, figs, "
    "fresh mint, ginger, horseradish, lime juice, mustard, pickled plums, plum jam, "
    "quince, red cabbage, sour cream, toasted almonds, walnuts"
)
COLOURS = phrases(
    "a beige, a black, a blue, a brown, a cream, a green, a grey, a maroon, a pink, "
    "a purple, a red, a silver, a turquoise, a white, a yellow, an olive, an orange"
)
VEHICLES = phrases(
    "bicycle, camper van, canoe, convertible, dinghy, estate car, fishing boat, "
    "hearse, houseboat, ice cream van, jeep, kayak, limousine, milk float, minibus, "
    "moped, motorcycle, pick-up truck, rowing boat, scooter, sledge, sports car, "
    "tandem, taxi, tractor, tricycle"
)
SIBLINGS = phrases(
    "an elder brother, an elder sister, a younger brother, a younger sister, "
    "a twin brother, a twin sister"
)
COLLECTED = phrases(
    "beer mats, boomerangs, bottle tops, chess sets, clogs, coins, door knobs, "
    "fans, fossils, globes, hats, keys, maps, marbles, masks, music boxes, "
    "paperweights, playing cards, postcards, puppets, quills, seashells, snow globes, "
    "spoons, stamps, teapots, thimbles, tin soldiers, typewriters, umbrellas"
)
COLLECTED_HOW = phrases(
    "antique, broken, miniature, painted, rare, foreign, handmade, valuable"
)
STREETS = phrases("Alley, Avenue, Close, Court, Lane, Road, Row, Square, Street, Way")
NUMBERS = phrases(
    "two, three, four, five, six, seven, eight, nine, ten, twelve, twenty, fifty, sixty"
)  # 13
MOODS = phrases(
    "angry, bashful, brave, clumsy, drowsy, eager, gentle, gloomy, grumpy, honest, "
    "hungry, jolly, lazy, nervous, noisy, patient, proud, shy, sleepy, solemn"
)  # 20
ANIMALS = phrases(
    "badgers, beavers, camels, crickets, crows, dolphins, ducks, eagles, foxes, geese, "
    "giraffes, herons, lobsters, moles, monkeys, moths, otters, owls, pandas, "
    "penguins, rabbits, seals, snails, storks, tigers, toads, walruses"
)  # 27
DEEDS = phrases(
    "applaud, argue, bake, count, dance, dream, hum, juggle, knit, march, paint, sing, "
    "skate, sneeze, travel, whistle, yawn"
)  # 17

# Full names and pass phrases are unique because the lengths of their pools are coprime;
# the numbers in the comments above are those lengths.
NAME_POOLS = (FIRST_NAMES, LAST_NAMES)
PASS_PHRASE_POOLS = (NUMBERS, MOODS, ANIMALS, DEEDS)

# Every other fact: a pattern and the pools of which each gives one word.
POOLS = {
    "birthplace": ("{}", CITIES),
    "birth_date": ("{} {} {}", range(1, 29), MONTHS, range(1930, 2006)),
    "profession": ("{}", PROFESSIONS),
    "employer": ("the {} {} {}", ADJECTIVES, THINGS, FIRMS),
    "pet": ("{} called {}", PETS, PET_NAMES),
    "instrument": ("{}", INSTRUMENTS),
    "dish": ("{} with {}", MAINS, SIDES),
    "vehicle": ("{} {}", COLOURS, VEHICLES),
    "sibling": ("{} called {}", SIBLINGS, FIRST_NAMES),
    "collection": ("{} {}", COLLECTED_HOW, COLLECTED),
    "address": ("{} {} {} {}", range(1, 120), ADJECTIVES, THINGS, STREETS),
}
