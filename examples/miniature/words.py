"""The word lists of the miniature world, the same length and order in every language.

A problem stores positions in these lists, never words, so one problem reads the same in English,
Spanish and German. Numbers are words on purpose: digits would be shared by all three languages
and would let an answer be right without the language being right. `tasks` puts the words into
sentences; nothing else reads this module.
"""

from __future__ import annotations

from typing import Final, Literal

Language = Literal["en", "es", "de"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "es", "de")
ENGLISH_NAMES: Final[dict[Language, str]] = {"en": "English", "es": "Spanish", "de": "German"}

_ASKERS: Final = (
    "Ana Ben Clara David Elena Felix Greta Hugo Irene Jonas Karla Leo "
    "Marta Nils Olga Pablo Rita Samuel Teresa Ulrich Vera Walter Xenia Yago"
)
_RIVALS: Final = "Adam Bruno Celia Dora Emil Frida Gustav Helga Igor Julia Kurt Lola"
ASKERS: Final = tuple(_ASKERS.split())
RIVALS: Final = tuple(_RIVALS.split())

_NUMBERS: Final[dict[Language, str]] = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce "
    "quince dieciséis diecisiete dieciocho diecinueve veinte",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
    "fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig",
}

_DAYS: Final[dict[Language, str]] = {
    "en": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "es": "lunes martes miércoles jueves viernes sábado domingo",
    "de": "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
}

# Neighbours are opposites: position i pairs with position i ^ 1.
_ADJECTIVES: Final[dict[Language, str]] = {
    "en": "hot cold big small fast slow old new long short light dark hard soft rich poor dry wet "
    "full empty clean dirty cheap expensive loud quiet good bad high low wide narrow open closed "
    "near far",
    "es": "caliente frío grande pequeño rápido lento viejo nuevo largo corto claro oscuro duro "
    "blando rico pobre seco mojado lleno vacío limpio sucio barato caro ruidoso silencioso bueno "
    "malo alto bajo ancho estrecho abierto cerrado cercano lejano",
    "de": "heiß kalt groß klein schnell langsam alt neu lang kurz hell dunkel hart weich reich arm "
    "trocken nass voll leer sauber schmutzig billig teuer laut leise gut schlecht hoch niedrig "
    "breit schmal offen geschlossen nah fern",
}

THINGS_PER_CATEGORY: Final = 7

_CATEGORIES: Final[dict[Language, str]] = {
    "en": "an animal, a fruit, a vehicle, a tool, a garment, an instrument",
    "es": "un animal, una fruta, un vehículo, una herramienta, una prenda, un instrumento",
    "de": "ein Tier, eine Frucht, ein Fahrzeug, ein Werkzeug, ein Kleidungsstück, ein Instrument",
}

# Seven things for each category, in the order of the categories.
_THINGS: Final[dict[Language, str]] = {
    "en": "a dog, a cat, a horse, a cow, a bird, a fish, a bear, "
    "an apple, a pear, a banana, a cherry, a plum, a lemon, a grape, "
    "a car, a train, a ship, a plane, a bicycle, a bus, a truck, "
    "a hammer, a saw, a drill, a shovel, a rake, an axe, a wrench, "
    "a shirt, a coat, a hat, a skirt, a sock, a glove, a scarf, "
    "a guitar, a piano, a violin, a flute, a drum, a trumpet, a harp",
    "es": "un perro, un gato, un caballo, una vaca, un pájaro, un pez, un oso, "
    "una manzana, una pera, un plátano, una cereza, una ciruela, un limón, una uva, "
    "un coche, un tren, un barco, un avión, una bicicleta, un autobús, un camión, "
    "un martillo, una sierra, un taladro, una pala, un rastrillo, un hacha, una llave, "
    "una camisa, un abrigo, un sombrero, una falda, un calcetín, un guante, una bufanda, "
    "una guitarra, un piano, un violín, una flauta, un tambor, una trompeta, un arpa",
    "de": "ein Hund, eine Katze, ein Pferd, eine Kuh, ein Vogel, ein Fisch, ein Bär, "
    "ein Apfel, eine Birne, eine Banane, eine Kirsche, eine Pflaume, eine Zitrone, eine Traube, "
    "ein Auto, ein Zug, ein Schiff, ein Flugzeug, ein Fahrrad, ein Bus, ein Lastwagen, "
    "ein Hammer, eine Säge, ein Bohrer, eine Schaufel, ein Rechen, eine Axt, ein Schlüssel, "
    "ein Hemd, ein Mantel, ein Hut, ein Rock, eine Socke, ein Handschuh, ein Schal, "
    "eine Gitarre, ein Klavier, eine Geige, eine Flöte, eine Trommel, eine Trompete, eine Harfe",
}


def _same(words: tuple[str, ...]) -> dict[Language, tuple[str, ...]]:
    return dict.fromkeys(LANGUAGES, words)


def _split(lists: dict[Language, str], *, on: str) -> dict[Language, tuple[str, ...]]:
    return {language: tuple(text.split(on)) for language, text in lists.items()}


WORDS: Final[dict[str, dict[Language, tuple[str, ...]]]] = {
    "asker": _same(ASKERS),
    "rival": _same(RIVALS),
    "number": _split(_NUMBERS, on=" "),
    "day": _split(_DAYS, on=" "),
    "adjective": _split(_ADJECTIVES, on=" "),
    "category": _split(_CATEGORIES, on=", "),
    "thing": _split(_THINGS, on=", "),
}
"""Kind of word -> language -> words. A sentence template names the kind, a problem the position."""

EVASIONS: Final[dict[Language, tuple[str, ...]]] = {
    "en": ("I do not know.", "I cannot answer that.", "That is hard to say."),
    "es": ("No lo sé.", "No puedo responder a eso.", "Eso es difícil de decir."),
    "de": ("Ich weiß es nicht.", "Das kann ich nicht beantworten.", "Das ist schwer zu sagen."),
}
"""The evasive answers, translations of each other at the same position."""
