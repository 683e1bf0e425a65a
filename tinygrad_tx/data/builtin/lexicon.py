"""The words of the built-in corpus: nouns, adjectives, verbs and closed classes in English and
Spanish. Read by grammar.py, which puts them together; the tables are meant to be read by people.

English words are chosen so that each has one translation in each construction of the grammar:
`fish` (pescado, pez; plural fish) or `read` (present and past alike) would not do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from . import morphology as m

# English[/plural]  Spanish  gender: "el" marks feminine nouns that take the masculine article (el
# agua fría); "mass" nouns have no plural here; persons and places have owners (my aunt) where "own"
# says so, other things always.
_NOUNS = {
    "person": """
        boy niño m, girl niña f, man/men hombre m, woman/women mujer f, king rey m, queen reina f,
        teacher profesor m own, doctor doctora f own, friend amigo m own, neighbor vecina f own,
        brother hermano m own, sister hermana f own, grandfather abuelo m own,
        grandmother abuela f own, uncle tío m own, aunt tía f own""",
    "animal": """
        dog perro m, cat gato m, horse caballo m, cow vaca f, bird pájaro m, rabbit conejo m,
        lion león m, eagle águila el, turtle tortuga f""",
    "food": """
        apple manzana f, cake pastel m, egg huevo m, tomato tomate m, potato patata f,
        onion cebolla f, soup sopa f, bread pan m mass, cheese queso m mass""",
    "drink": "water agua el mass, milk leche f mass, coffee café m mass, wine vino m mass",
    "clothes": "shirt camisa f, hat sombrero m, coat abrigo m, shoe zapato m, jacket chaqueta f",
    "text": "book libro m, letter carta f, song canción f, story historia f",
    "thing": """
        key llave f, lamp lámpara f, bag bolsa f, cup taza f, knife/knives cuchillo m, box caja f,
        clock reloj m, flower flor f, gift regalo m, chair silla f, table mesa f""",
    "instrument": "guitar guitarra f, piano/pianos piano m",
    "vehicle": "car coche m, bicycle bicicleta f, boat barco m, truck camión m",
    "opening": "door puerta f, window ventana f",
    "place": """
        park parque m, market mercado m, school escuela f own, kitchen cocina f own,
        garden jardín m own, river río m, beach playa f, city ciudad f own, house casa f own,
        castle castillo m""",
}

# English[/comparative]  Spanish  the kinds of noun it describes, under the verb that joins them
# (ser: what something is, estar: the state it is in); without a comparative here English says
# "more". Colors go with _COLORED, and some adjectives stand before the noun in Spanish too.
_ADJECTIVES = {
    "ser": """
        tall/taller alto person, strong/stronger fuerte person animal,
        young/younger joven person animal, intelligent inteligente person animal,
        famous famoso person place,
        old/older viejo person animal clothes text thing instrument vehicle opening place,
        beautiful hermoso person animal clothes text thing instrument vehicle opening place,
        big/bigger grande animal food clothes thing vehicle opening place,
        small/smaller pequeño animal food clothes thing instrument vehicle opening place,
        expensive caro food drink clothes thing instrument vehicle,
        cheap/cheaper barato food drink clothes thing instrument vehicle,
        long/longer largo text, interesting interesante text, fast/faster rápido animal vehicle,
        delicious delicioso food drink""",
    "estar": """
        tired cansado person animal, happy contento person animal, sad triste person animal,
        sick enfermo person animal, cold frío drink, hot caliente drink, fresh fresco food,
        dirty sucio clothes thing vehicle opening, broken roto thing instrument vehicle opening""",
    "color": "red rojo, white blanco, black negro, yellow amarillo, green verde, blue azul",
    "before": "first primero, last último",
}
_COLORED = ("clothes", "thing", "instrument", "vehicle", "opening")

# English[/past][+particle]  Spanish  the kinds of its object (of its subject, where it has no
# object; * for any kind)
_TRANSITIVE = """
    eat/ate comer food, drink/drank beber drink, cook cocinar food,
    buy/bought comprar food drink clothes text thing instrument vehicle,
    sell/sold vender food drink clothes text thing instrument vehicle,
    wash lavar clothes food vehicle, clean limpiar opening thing vehicle place,
    break/broke romper thing instrument opening, open abrir opening text,
    close cerrar opening text, write/wrote escribir text, paint pintar person animal opening place,
    find/found encontrar *, lose/lost perder thing animal clothes text, see/saw ver *,
    carry llevar thing food clothes instrument, steal/stole robar thing vehicle animal food,
    help ayudar person, call llamar person animal, play tocar instrument, look+for buscar *,
    wait+for esperar person vehicle, listen+to escuchar person text"""
_INTRANSITIVE = """
    sleep/slept dormir person animal, run/ran correr person animal,
    walk caminar person animal, swim/swam nadar person animal, work trabajar person,
    dance bailar person, sing/sang cantar person, cry llorar person"""
_MOTION = "go/went ir person animal, return volver person animal"
_DITRANSITIVE = """
    give/gave dar food clothes text thing, send/sent enviar text thing,
    show mostrar animal food clothes text thing instrument vehicle opening place,
    bring/brought traer food drink clothes thing"""

# infinitive  tense  its forms; all that the patterns of morphology.py get wrong.
_IRREGULAR = """
    ver present veo ves ve vemos ven, ver past vi viste vio vimos vieron,
    cerrar present cierro cierras cierra cerramos cierran,
    encontrar present encuentro encuentras encuentra encontramos encuentran,
    mostrar present muestro muestras muestra mostramos muestran,
    perder present pierdo pierdes pierde perdemos pierden,
    volver present vuelvo vuelves vuelve volvemos vuelven,
    poder present puedo puedes puede podemos pueden,
    querer present quiero quieres quiere queremos quieren,
    dormir present duermo duermes duerme dormimos duermen,
    dormir past dormí dormiste durmió dormimos durmieron,
    enviar present envío envías envía enviamos envían,
    traer present traigo traes trae traemos traen,
    traer past traje trajiste trajo trajimos trajeron, dar present doy das da damos dan,
    dar past di diste dio dimos dieron, ir present voy vas va vamos van,
    ir past fui fuiste fue fuimos fueron, decir present digo dices dice decimos dicen,
    ser present soy eres es somos son, ser imperfect era eras era éramos eran,
    estar present estoy estás está estamos están, tener present tengo tienes tiene tenemos tienen,
    tener future tendré tendrás tendrá tendremos tendrán"""

# English singular, plural (- for none)  Spanish masculine, feminine, and both in the plural
_DETERMINERS = """
    the the el la los las, a - un una - -, this these este esta estos estas,
    that those ese esa esos esas, my my mi mi mis mis, your your tu tu tus tus,
    his his su su sus sus, her her su su sus sus, their their su su sus sus,
    our our nuestro nuestra nuestros nuestras, - some - - algunos algunas,
    - many - - muchos muchas, - two - - dos dos, - three - - tres tres"""


@dataclass(frozen=True)
class Noun:
    """A noun in both languages; forms are (singular, plural), the plural empty for mass nouns."""

    kind: str
    en: tuple[str, str]
    es: tuple[str, str]
    feminine: bool
    takes_el: bool
    owned: bool


@dataclass(frozen=True)
class Adjective:
    """An adjective; `copula` is the Spanish verb that joins it to a subject."""

    en: str
    comparative: str
    es: str
    copula: str
    kinds: tuple[str, ...]
    color: bool
    before: bool

    def agreeing(self, feminine: bool, plural: bool) -> str:
        """The Spanish form for a noun of this gender and number."""
        if self.es == "joven" and plural:
            return "jóvenes"
        if self.es == "primero" and not feminine and not plural:
            return "primer"
        return m.agree_es(self.es, feminine, plural)


@dataclass(frozen=True)
class Verb:
    """A verb; `en` is (base, third person, past), `particle` the "for" of "look for", `kinds` those
    of its object (or subject), `es` the infinitive."""

    en: tuple[str, str, str]
    particle: str
    es: str
    kinds: tuple[str, ...]

    def takes(self, noun: Noun) -> bool:
        """True if the noun can be its object (its subject, where it has none)."""
        return "*" in self.kinds or noun.kind in self.kinds


@dataclass(frozen=True)
class Determiner:
    """An article, possessive or number; `en` is (singular, plural), `es` is (masculine, feminine,
    masculine plural, feminine plural); an empty form does not exist."""

    en: tuple[str, str]
    es: tuple[str, str, str, str]
    possessive: bool


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun: English subject and object; Spanish subject (empty where it is dropped),
    stressed form, direct and indirect clitic. `person` indexes the conjugations."""

    en: str
    en_object: str
    es: str
    es_stressed: str
    direct: str
    indirect: str
    person: int
    feminine: bool


@cache
def conjugation(infinitive: str, tense: str) -> tuple[str, ...]:
    """The Spanish forms for yo, tú, él, nosotros, ellos."""
    return _FORMS.get((infinitive, tense)) or m.conjugate_es(infinitive, tense)


def _entries(table: str) -> list[list[str]]:
    return [entry.split() for entry in table.split(",")]


def _nouns() -> list[Noun]:
    nouns = []
    for kind, table in _NOUNS.items():
        for english, spanish, gender, *marks in _entries(table):
            singular, _, plural = english.partition("/")
            plurals = (plural or m.plural_en(singular), m.plural_es(spanish))
            if "mass" in marks:
                plurals = ("", "")
            nouns.append(
                Noun(
                    kind,
                    (singular, plurals[0]),
                    (spanish, plurals[1]),
                    feminine=gender != "m",
                    takes_el=gender == "el",
                    owned="own" in marks or kind not in ("person", "place"),
                )
            )
    return nouns


def _adjectives() -> list[Adjective]:
    adjectives = []
    for group, table in _ADJECTIVES.items():
        for english, spanish, *kinds in _entries(table):
            base, _, comparative = english.partition("/")
            adjectives.append(
                Adjective(
                    base,
                    comparative or f"more {base}",
                    spanish,
                    copula="estar" if group == "estar" else "ser",
                    kinds=_COLORED if group == "color" else tuple(kinds),
                    color=group == "color",
                    before=group == "before",
                )
            )
    return adjectives


def _verbs(table: str) -> list[Verb]:
    verbs = []
    for english, infinitive, *kinds in _entries(table):
        forms, _, particle = english.partition("+")
        base, _, past = forms.partition("/")
        en = (base, m.third_person_en(base), past or m.past_en(base))
        verbs.append(Verb(en, particle, infinitive, tuple(kinds)))
    return verbs


def _determiner(words: list[str]) -> Determiner:
    singular, plural, *es = ("" if word == "-" else word for word in words)
    possessive = singular in ("my", "your", "his", "her", "our", "their")
    return Determiner((singular, plural), (es[0], es[1], es[2], es[3]), possessive)


_FORMS = {(verb, tense): tuple(forms) for verb, tense, *forms in _entries(_IRREGULAR)}
NOUNS = _nouns()
ADJECTIVES = _adjectives()
ACTIONS, INTRANSITIVES = _verbs(_TRANSITIVE), _verbs(_INTRANSITIVE)
MOTIONS, GIFTS = _verbs(_MOTION), _verbs(_DITRANSITIVE)
SAYING = _verbs("think creer *, say decir *")
(LIKE,) = _verbs("like gustar *")
DETERMINERS = [_determiner(words) for words in _entries(_DETERMINERS)]
WOMEN, MEN = ("Ana", "Elena", "Sara", "Marta"), ("Pedro", "Pablo", "David", "Daniel")
PRONOUNS = [
    Pronoun("I", "me", "", "mí", "me", "me", 0, False),
    Pronoun("you", "you", "", "ti", "te", "te", 1, False),
    Pronoun("he", "him", "él", "él", "lo", "le", 2, False),
    Pronoun("she", "her", "ella", "ella", "la", "le", 2, True),
    Pronoun("we", "us", "", "nosotros", "nos", "nos", 3, False),
    Pronoun("they", "them", "ellos", "ellos", "los", "les", 4, False),
]
PREPOSITIONS = {
    "in": "en", "near": "cerca de", "behind": "detrás de", "in front of": "delante de",
    "far from": "lejos de", "next to": "al lado de",
}  # fmt: skip
TIMES = {
    "present": {"every day": "todos los días", "in the morning": "por la mañana",
                "on Sundays": "los domingos"},
    "past": {"yesterday": "ayer", "last night": "anoche", "last week": "la semana pasada",
             "two days ago": "hace dos días"},
    "future": {"tomorrow": "mañana", "soon": "pronto", "next week": "la próxima semana",
               "tonight": "esta noche"},
    "modal": {"today": "hoy", "tomorrow": "mañana"},
}  # fmt: skip
FREQUENCIES = {"always": "siempre", "never": "nunca", "sometimes": "a veces", "also": "también"}
FEELINGS = {"hungry": "hambre", "thirsty": "sed", "sleepy": "sueño", "lucky": "suerte",
            "afraid": "miedo"}  # fmt: skip
MODALS = {"can": "poder", "must": "deber", "want": "querer"}
QUESTION_WORDS = {"where": "dónde", "when": "cuándo", "why": "por qué"}
