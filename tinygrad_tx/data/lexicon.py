"""The words of the built-in corpus: nouns, adjectives, verbs and closed classes in English and
Spanish. Read by grammar.py, which puts them together; the tables are meant to be read by people.

English words are chosen so that each has one translation in each construction of the grammar:
`fish` (pescado, pez; plural fish) or `read` (present and past alike) would not do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tinygrad_tx.data import morphology as m

# English[/plural]  Spanish  gender: "el" marks feminine nouns that take the masculine article (el
# agua fría); "mass" nouns have no plural here; persons and places have owners (my aunt) where "own"
# says so, other things always.
_NOUNS = {
    "person": """
        boy niño m, girl niña f, man/men hombre m, woman/women mujer f, king rey m, queen reina f,
        teacher profesor m own, doctor doctora f own, friend amigo m own, neighbor vecina f own,
        brother hermano m own, sister hermana f own, grandfather abuelo m own,
        grandmother abuela f own, uncle tío m own, aunt tía f own,
        lawyer abogada f, waiter camarero m, waitress camarera f, baker panadero m,
        singer cantante f, farmer granjero m, actress actriz f, soldier soldado m,
        writer escritora f, engineer ingeniera f, painter pintor m, dancer bailarina f""",
    "animal": """
        dog perro m, cat gato m, horse caballo m, cow vaca f, bird pájaro m, rabbit conejo m,
        wolf/wolves lobo m, lion león m, bear oso m, duck pato m, spider araña f,
        butterfly mariposa f, eagle águila el, turtle tortuga f, snake serpiente f, goat cabra f""",
    "food": """
        apple manzana f, pear pera f, lemon limón m, strawberry fresa f, cake pastel m,
        cookie galleta f, egg huevo m, tomato tomate m, potato patata f, onion cebolla f,
        carrot zanahoria f, salad ensalada f, soup sopa f, sandwich bocadillo m,
        bread pan m mass, cheese queso m mass""",
    "drink": """
        water agua el mass, milk leche f mass, coffee café m mass, tea té m mass,
        juice zumo m mass, wine vino m mass, beer cerveza f mass""",
    "clothes": """
        shirt camisa f, hat sombrero m, coat abrigo m, dress vestido m, shoe zapato m,
        skirt falda f, jacket chaqueta f, sock calcetín m, glove guante m, tie corbata f""",
    "text": """
        book libro m, letter carta f, newspaper periódico m, poem poema m, song canción f,
        story historia f""",
    "thing": """
        key llave f, lamp lámpara f, bag bolsa f, bottle botella f, cup taza f,
        knife/knives cuchillo m, clock reloj m, mirror espejo m, chair silla f, table mesa f,
        box caja f, gift regalo m, phone teléfono m, flower flor f, coin moneda f, basket cesta f,
        pencil lápiz m, candle vela f, toy juguete m, ball pelota f, map mapa m""",
    "instrument": "guitar guitarra f, piano/pianos piano m, violin violín m, flute flauta f",
    "vehicle": """
        car coche m, bicycle bicicleta f, boat barco m, truck camión m, train tren m,
        bus autobús m, plane avión m""",
    "opening": "door puerta f, window ventana f",
    "place": """
        park parque m, market mercado m, school escuela f own, kitchen cocina f own,
        garden jardín m own, river río m, beach playa f, city ciudad f own, village pueblo m own,
        church iglesia f, station estación f, bridge puente m, library biblioteca f,
        museum museo m, hospital hospital m, forest bosque m, street calle f own, island isla f,
        hotel hotel m, house casa f own, castle castillo m, theater teatro m""",
}

# English[/comparative]  Spanish  the kinds of noun it describes, under the verb that joins them
# (ser: what something is, estar: the state it is in); without a comparative here English says
# "more". Colors go with _COLORED, and three adjectives stand before the noun in Spanish too.
_ADJECTIVES = {
    "ser": """
        tall/taller alto person, short/shorter bajo person, strong/stronger fuerte person animal,
        young/younger joven person animal, intelligent inteligente person animal,
        brave/braver valiente person animal, famous famoso person place,
        lazy/lazier perezoso person animal, serious serio person,
        friendly/friendlier amable person, elegant elegante person clothes,
        old/older viejo person animal clothes text thing instrument vehicle opening place,
        beautiful hermoso person animal clothes text thing instrument vehicle opening place,
        strange/stranger extraño person animal clothes text thing instrument vehicle opening place,
        big/bigger grande animal food clothes thing vehicle opening place,
        small/smaller pequeño animal food clothes text thing instrument vehicle opening place,
        ugly/uglier feo animal clothes thing vehicle place,
        expensive caro food drink clothes thing instrument vehicle,
        cheap/cheaper barato food drink clothes thing instrument vehicle,
        heavy/heavier pesado thing instrument, long/longer largo text, short/shorter corto text,
        interesting interesante text place, dangerous peligroso animal place vehicle,
        fast/faster rápido animal vehicle, slow/slower lento animal vehicle,
        modern moderno instrument vehicle opening place, round redondo thing,
        delicious delicioso food drink, sweet/sweeter dulce food drink""",
    "estar": """
        tired cansado person animal, happy contento person animal, sad triste person animal,
        sick enfermo person animal, angry enfadado person animal, busy ocupado person,
        nervous nervioso person animal, cold frío drink, hot caliente drink, fresh fresco food,
        dirty sucio clothes thing vehicle opening, broken roto thing instrument vehicle opening,
        empty vacío place vehicle, quiet tranquilo place""",
    "color": """
        red rojo, white blanco, black negro, yellow amarillo, green verde, blue azul, gray gris""",
    "before": "first primero, last último, same mismo",
}
_COLORED = ("clothes", "thing", "instrument", "vehicle", "opening")

# English[/past[/-ing]][+particle]  Spanish  the kinds of its object (of its subject, where there is
# no object; * for any kind; text.song for this one noun); "stative" verbs have simple tenses only.
_TRANSITIVE = """
    eat/ate comer food, drink/drank beber drink, cook cocinar food,
    buy/bought comprar food drink clothes text thing instrument vehicle,
    sell/sold vender food drink clothes text thing instrument vehicle,
    wash lavar clothes food vehicle, clean limpiar opening thing vehicle place,
    break/broke romper thing instrument opening, open abrir opening text,
    close cerrar opening text, write/wrote escribir text, paint pintar person animal opening place,
    draw/drew dibujar person animal thing place, sing/sang cantar text.song,
    forget/forgot/forgetting olvidar text clothes thing person,
    remember recordar text person place stative, find/found encontrar *,
    lose/lost perder clothes thing animal, carry llevar thing food clothes instrument,
    hide/hid esconder thing food animal, steal/stole robar thing vehicle animal food,
    choose/chose elegir clothes food text thing, need necesitar thing clothes instrument stative,
    pet/petted/petting acariciar animal, feed/fed alimentar animal,
    follow seguir person animal vehicle,
    help ayudar person, call llamar person animal, visit visitar person place,
    see/saw ver * stative,
    hear/heard oír person animal text.song stative, build/built construir place,
    drive/drove conducir vehicle, repair reparar thing vehicle instrument opening,
    play tocar instrument, look+at mirar *, look+for buscar *, wait+for esperar person vehicle,
    listen+to escuchar person text, pay/paid+for pagar food drink clothes vehicle"""
_INTRANSITIVE = """
    sleep/slept dormir person animal, run/ran/running correr person animal,
    rest descansar person animal, walk caminar person animal,
    swim/swam/swimming nadar person animal, eat/ate comer person animal, work trabajar person,
    play jugar person animal, dance bailar person, sing/sang cantar person, cry llorar person,
    travel viajar person, live vivir person stative, wait esperar person"""
_MOTION = """
    go/went ir person animal, return volver person animal, run/ran/running correr person animal,
    walk caminar person animal"""
_DITRANSITIVE = """
    give/gave dar food clothes text thing, send/sent enviar text thing, show mostrar *,
    bring/brought traer food drink clothes thing, offer ofrecer food drink thing,
    lend/lent prestar clothes thing vehicle instrument, sell/sold vender clothes thing vehicle"""

# infinitive  tense  its forms; all that the patterns of morphology.py get wrong.
_IRREGULAR = """
    ver present veo ves ve vemos ven, ver past vi viste vio vimos vieron,
    oír present oigo oyes oye oímos oyen, oír past oí oíste oyó oímos oyeron,
    oír future oiré oirás oirá oiremos oirán, oír gerund oyendo,
    cerrar present cierro cierras cierra cerramos cierran,
    recordar present recuerdo recuerdas recuerda recordamos recuerdan,
    encontrar present encuentro encuentras encuentra encontramos encuentran,
    mostrar present muestro muestras muestra mostramos muestran,
    perder present pierdo pierdes pierde perdemos pierden,
    volver present vuelvo vuelves vuelve volvemos vuelven,
    poder present puedo puedes puede podemos pueden,
    querer present quiero quieres quiere queremos quieren,
    jugar present juego juegas juega jugamos juegan,
    dormir present duermo duermes duerme dormimos duermen,
    dormir past dormí dormiste durmió dormimos durmieron, dormir gerund durmiendo,
    seguir present sigo sigues sigue seguimos siguen,
    seguir past seguí seguiste siguió seguimos siguieron, seguir gerund siguiendo,
    elegir present elijo eliges elige elegimos eligen,
    elegir past elegí elegiste eligió elegimos eligieron, elegir gerund eligiendo,
    construir present construyo construyes construye construimos construyen,
    construir past construí construiste construyó construimos construyeron,
    construir gerund construyendo,
    conducir present conduzco conduces conduce conducimos conducen,
    conducir past conduje condujiste condujo condujimos condujeron,
    ofrecer present ofrezco ofreces ofrece ofrecemos ofrecen,
    enviar present envío envías envía enviamos envían,
    traer present traigo traes trae traemos traen,
    traer past traje trajiste trajo trajimos trajeron, traer gerund trayendo,
    dar present doy das da damos dan, dar past di diste dio dimos dieron,
    ir present voy vas va vamos van, ir past fui fuiste fue fuimos fueron, ir gerund yendo,
    decir present digo dices dice decimos dicen,
    ser present soy eres es somos son, ser imperfect era eras era éramos eran,
    estar present estoy estás está estamos están,
    tener present tengo tienes tiene tenemos tienen,
    tener future tendré tendrás tendrá tendremos tendrán"""

# English singular, plural (- for none)  Spanish masculine, feminine, and both in the plural
_DETERMINERS = """
    the the el la los las, a - un una - -, this these este esta estos estas,
    that those ese esa esos esas, my my mi mi mis mis, your your tu tu tus tus,
    his his su su sus sus, her her su su sus sus, their their su su sus sus,
    our our nuestro nuestra nuestros nuestras, every - cada cada - -,
    - some - - algunos algunas, - many - - muchos muchas, - two - - dos dos,
    - three - - tres tres, - four - - cuatro cuatro, - five - - cinco cinco"""


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
    """A verb; `en` is (base, third person, past, -ing), `particle` the "for" of "look for", `kinds`
    of object (or of subject), `es` the infinitive."""

    en: tuple[str, str, str, str]
    particle: str
    es: str
    kinds: tuple[str, ...]
    stative: bool

    def takes(self, noun: Noun) -> bool:
        """Whether the noun can be its object (its subject, where it has none)."""
        return bool({"*", noun.kind, f"{noun.kind}.{noun.en[0]}"} & set(self.kinds))


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


@cache
def gerund(infinitive: str) -> str:
    """The Spanish gerund."""
    irregular = _FORMS.get((infinitive, "gerund"))
    return irregular[0] if irregular else m.gerund_es(infinitive)


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
        base, *irregular = forms.split("/")
        past = irregular[0] if irregular else m.past_en(base)
        ing = irregular[1] if len(irregular) > 1 else m.gerund_en(base)
        stative = "stative" in kinds
        objects = tuple(kind for kind in kinds if kind != "stative")
        en = (base, m.third_person_en(base), past, ing)
        verbs.append(Verb(en, particle, infinitive, objects, stative))
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
SAYING = _verbs("think/thought creer *, say/said decir *")
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
    "progressive": {"now": "ahora", "today": "hoy"},
    "modal": {"today": "hoy", "tomorrow": "mañana"},
}  # fmt: skip
FREQUENCIES = {"always": "siempre", "never": "nunca", "sometimes": "a veces", "also": "también"}
FEELINGS = {"hungry": "hambre", "thirsty": "sed", "sleepy": "sueño", "lucky": "suerte",
            "afraid": "miedo"}  # fmt: skip
MODALS = {"can": "poder", "must": "deber", "want": "querer"}
QUESTION_WORDS = {"where": "dónde", "when": "cuándo", "why": "por qué"}
