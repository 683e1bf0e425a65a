"""The inflection of English and Spanish words. In: base forms. Out: plurals, agreeing adjectives,
conjugated verbs. Called by lexicon.py when it reads its tables.

Only the regular patterns live here; what is irregular is written out in the lexicon.
"""

from __future__ import annotations

VOWELS = "aeiou"
ACUTE = str.maketrans("áéíóú", "aeiou")


def plural_en(noun: str) -> str:
    """box -> boxes, city -> cities, dog -> dogs."""
    return _with_s(noun)


def third_person_en(verb: str) -> str:
    """watch -> watches, carry -> carries, go -> goes, see -> sees."""
    return _with_s(verb)


def _with_s(word: str) -> str:
    if word.endswith("y") and word[-2] not in VOWELS:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "sh", "ch", "x", "o")) else "s")


def past_en(verb: str) -> str:
    """close -> closed, carry -> carried, help -> helped."""
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    return verb + "ed"


def plural_es(word: str) -> str:
    """casa -> casas, flor -> flores, lápiz -> lápices, camión -> camiones."""
    if word[-1] in "aeioué":
        return word + "s"
    if word.endswith("z"):
        return word[:-1] + "ces"
    if word[-2] in "áéíóú" and word[-1] in "ns":  # the stress is regular again before -es
        word = word[:-2] + word[-2].translate(ACUTE) + word[-1]
    return word + "es"


def agree_es(adjective: str, feminine: bool, plural: bool) -> str:
    """alto -> alta, altos, altas; verde -> verdes; trabajador -> trabajadora."""
    if feminine:
        if adjective.endswith("o"):
            adjective = adjective[:-1] + "a"
        elif adjective.endswith("or"):
            adjective += "a"
    return plural_es(adjective) if plural else adjective


ENDINGS = {
    "present": {
        "a": ("o", "as", "a", "amos", "an"),
        "e": ("o", "es", "e", "emos", "en"),
        "i": ("o", "es", "e", "imos", "en"),
    },
    "past": {
        "a": ("é", "aste", "ó", "amos", "aron"),
        "e": ("í", "iste", "ió", "imos", "ieron"),
        "i": ("í", "iste", "ió", "imos", "ieron"),
    },
    "imperfect": {
        "a": ("aba", "abas", "aba", "ábamos", "aban"),
        "e": ("ía", "ías", "ía", "íamos", "ían"),
        "i": ("ía", "ías", "ía", "íamos", "ían"),
    },
}
FUTURE = ("é", "ás", "á", "emos", "án")


def conjugate_es(infinitive: str, tense: str) -> tuple[str, ...]:
    """The five forms (yo, tú, él, nosotros, ellos) of a regular verb in one tense: present, past
    (the preterite), imperfect or future."""
    if tense == "future":
        return tuple(infinitive + ending for ending in FUTURE)
    stem, group = infinitive[:-2], infinitive[-2].translate(ACUTE)
    forms = [stem + ending for ending in ENDINGS[tense][group]]
    if tense == "past" and group == "a":  # buscar -> busqué: the consonant keeps its sound
        for written, before_e in (("c", "qu"), ("g", "gu"), ("z", "c")):
            if stem.endswith(written):
                forms[0] = stem[:-1] + before_e + "é"
    return tuple(forms)
