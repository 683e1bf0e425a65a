"""The kinds of sentence in the built-in corpus, and the choices that fill them.

In: a random number generator. Out: a `Sentence` with the word combinations it used. Called by
grammar.py, which sorts sentences into splits; words are lexicon.py's, syntax syntax.py's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from . import lexicon as lx
from . import syntax as sx
from .syntax import Form, NounPhrase, Pair, Predicate

T = TypeVar("T")

OF_KIND = {kind: [n for n in lx.NOUNS if n.kind == kind] for kind in {n.kind for n in lx.NOUNS}}
PERSONS, ANIMALS, PLACES = OF_KIND["person"], OF_KIND["animal"], OF_KIND["place"]
MOVABLE = [n for n in lx.NOUNS if n.en[1] and n.kind not in ("person", "place", "opening")]
SUPPORTS = [n for n in lx.NOUNS if n.en[0] in ("table", "chair", "box")]
OBJECTS = {
    verb: [n for n in lx.NOUNS if verb.takes(n)] for verb in (*lx.ACTIONS, *lx.GIFTS, lx.LIKE)
}
ON_PERSONS = [verb for verb in lx.ACTIONS if {"person", "*"} & set(verb.kinds)]
ON_THINGS = [verb for verb in lx.ACTIONS if "person" not in verb.kinds]
ADJECTIVES = {kind: [a for a in lx.ADJECTIVES if kind in a.kinds] for kind in OF_KIND}
COLORS = {kind: [a for a in ADJECTIVES[kind] if a.color] for kind in OF_KIND}
LASTING = {
    kind: [a for a in ADJECTIVES[kind] if a.copula == "ser" and not a.color] for kind in OF_KIND
}
GRADED = [a for a in lx.ADJECTIVES if not a.color and a.en not in ("broken", "delicious")]
BEFORE = [a for a in lx.ADJECTIVES if a.before]

THE, A, *_ = lx.DETERMINERS
DETERMINERS = [THE] * 8 + [A] * 4 + lx.DETERMINERS
INDEFINITE = [A] * 3 + [d for d in lx.DETERMINERS if d.en[1] in ("some", "many", "two", "three")]
OF_OWNERS = [THE] * 3 + [d for d in lx.DETERMINERS if d.possessive]
OF_PLACES = [THE] * 6 + [A] + [d for d in lx.DETERMINERS if all(d.en)]
FREQUENCIES = tuple(lx.FREQUENCIES)
FEELINGS, QUESTION_WORDS = tuple(lx.FEELINGS.items()), tuple(lx.QUESTION_WORDS.items())
PREPOSITIONS = (("in", "en"), *lx.PREPOSITIONS.items())  # "in" twice as often
TIMES = {mode: tuple(times.items()) for mode, times in lx.TIMES.items()}
MAX_WORDS = 12
ACTION_MODES = (*sx.TENSES, *sx.TENSES, *lx.MODALS)


@dataclass(frozen=True)
class Sentence:
    """One sentence in both languages; `combinations` are its (adjective, noun) and (verb, object)
    pairs, as English base forms."""

    en: str
    es: str
    combinations: frozenset[Pair]


def compose(rng: random.Random) -> Sentence:
    """A sentence of any kind, of at most MAX_WORDS English words."""
    while True:
        composer = _Composer(rng)
        clause, asks = composer.pick(_KINDS)(composer)
        if clause[0].count(" ") < MAX_WORDS:
            en, es = sx.written(clause, asks)
            return Sentence(en, es, frozenset(composer.combinations))


def _fits(determiner: lx.Determiner, noun: lx.Noun, plural: bool) -> bool:
    countable = bool(noun.en[1]) or all(determiner.en)  # no "every milk"
    return bool(determiner.en[plural]) and countable and (noun.owned or not determiner.possessive)


class _Phrases:
    """Makes the choices of a sentence's noun phrases and complements, and keeps the combinations
    they led to."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random  # the one draw whose stream Python promises to keep
        self.combinations: set[Pair] = set()
        self._adjective_rate = 0.45

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    # Noun phrases

    def noun(
        self, nouns: Sequence[lx.Noun], determiners: Sequence[lx.Determiner] = DETERMINERS
    ) -> NounPhrase:
        noun = self.pick(nouns)
        plural = bool(noun.en[1]) and self.chance(0.35)
        definite = determiners is not INDEFINITE
        adjectives, determiner, owner = self._adjectives(noun, definite), THE, None
        if definite and noun.owned and self.chance(0.08):
            owner = self._owner()
        elif not (adjectives and adjectives[0].before):
            determiner = self.pick(determiners)
            while not _fits(determiner, noun, plural):
                determiner = self.pick(determiners)
        return sx.noun_phrase(noun, plural, determiner, adjectives, owner)

    def _adjectives(self, noun: lx.Noun, definite: bool) -> list[lx.Adjective]:
        if not self.chance(self._adjective_rate):
            return []
        found = [self.pick(BEFORE if definite and self.chance(0.08) else ADJECTIVES[noun.kind])]
        if COLORS[noun.kind] and not found[0].color and self.chance(0.15):
            found.append(self.pick(COLORS[noun.kind]))
        self.combinations.update((a.en, noun.en[0]) for a in found)
        return found

    def _owner(self) -> NounPhrase:
        if self.chance(0.4):
            return self._name()
        noun = self.pick(PERSONS)
        determiner = self.pick(OF_OWNERS) if noun.owned else THE
        return sx.noun_phrase(noun, self.chance(0.2), determiner)

    def _name(self) -> NounPhrase:
        name = self.pick(lx.WOMEN + lx.MEN)
        return NounPhrase(name, name, 2, feminine=name in lx.WOMEN)

    def person(self) -> NounPhrase:
        kind = self._random()
        if kind < 0.12:
            return self._name()
        if kind < 0.45:
            p = self.pick(lx.PRONOUNS)
            return NounPhrase(p.en, p.es, p.person, p.feminine)
        if kind < 0.93:
            return self.noun(PERSONS)
        self._adjective_rate = 0.1  # two persons make a long sentence
        one, two = self._name() if self.chance(0.3) else self.noun(PERSONS), self.noun(PERSONS)
        both_feminine = one.feminine and two.feminine
        return NounPhrase(f"{one.en} and {two.en}", f"{one.es} y {two.es}", 4, both_feminine)

    def person_or_animal(self) -> NounPhrase:
        return self.noun(ANIMALS) if self.chance(0.3) else self.person()

    def anything(self) -> NounPhrase:
        return self.noun(lx.NOUNS) if self.chance(0.6) else self.person()

    def movable(self) -> NounPhrase:
        return self.noun(ANIMALS + MOVABLE) if self.chance(0.6) else self.person()

    def _other_pronoun(self, subject: NounPhrase) -> lx.Pronoun:
        """An object pronoun that is not the subject's own."""
        own = {0: (0, 3), 1: (1,), 3: (0, 3)}.get(subject.person, ())
        return self.pick([p for p in lx.PRONOUNS if p.person not in own])

    # Complements

    def place(self) -> Pair:
        en, es = self.pick(PREPOSITIONS)
        place = self.noun(PLACES, OF_PLACES)
        return f"{en} {place.en}", f"{es} {place.es}"

    def companion(self, subject: NounPhrase) -> Pair:
        en, es = self.pick((("with", "con"), ("for", "para")))
        if self.chance(0.4):
            pronoun = self._other_pronoun(subject)
            return f"{en} {pronoun.en_object}", f"{es} {pronoun.es_stressed}"
        other = self.noun(PERSONS)
        return f"{en} {other.en}", f"{es} {other.es}"

    def _adverb(self, mode: str, form: Form) -> str:
        fits = form == "says" and mode in ("present", "past")
        return self.pick(FREQUENCIES) if fits and self.chance(0.15) else ""

    def _object(self, verb: lx.Verb) -> NounPhrase:
        thing = self.noun(OBJECTS[verb])
        self.combinations.add((verb.en[0], thing.head))
        return thing


class _Composer(_Phrases):
    """Makes the choices of one sentence."""

    # Predicates

    def does(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        """Buys the red car."""
        verb = self.pick(lx.ACTIONS)
        group = sx.verb_group(verb, subject.person, mode, form, adverb=self._adverb(mode, form))
        group = group.then(self._object(verb).as_object)
        if self.chance(0.8):
            return group
        return group.then(self.place() if self.chance(0.6) else self.companion(subject))

    def helps_her(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        """The object is a pronoun: before the verb in Spanish."""
        verb, pronoun = self.pick(ON_PERSONS), self._other_pronoun(subject)
        adverb = self._adverb(mode, form)
        group = sx.verb_group(verb, subject.person, mode, form, pronoun.direct, adverb)
        group = group.then((pronoun.en_object, ""))
        return group.then(self.place()) if self.chance(0.3) else group

    def acts(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        """Sleeps in the garden, goes to the market."""
        going = self.chance(0.3)
        verb = self.pick(lx.MOTIONS if going else lx.INTRANSITIVES)
        if subject.kind not in verb.kinds:
            verb = self.pick([v for v in lx.INTRANSITIVES if subject.kind in v.kinds])
            going = False
        group = sx.verb_group(verb, subject.person, mode, form, adverb=self._adverb(mode, form))
        if going:
            goal = self.noun(PLACES, OF_PLACES)
            return group.then((f"to {goal.en}", f"a {goal.es}"))
        return group.then(self.place() if self.chance(0.7) else self.companion(subject))

    def gives(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        """Two objects. Spanish doubles the receiver by a clitic: le da el libro a la niña."""
        verb = self.pick(lx.GIFTS)
        thing = self._object(verb)
        if self.chance(0.5):
            pronoun = self._other_pronoun(subject)
            group = sx.verb_group(verb, subject.person, mode, form, pronoun.indirect)
            return group.then((pronoun.en_object, ""), (thing.en, thing.es))
        receiver = self.noun(PERSONS)
        group = sx.verb_group(verb, subject.person, mode, form, sx.INDIRECT[receiver.person])
        return group.then((thing.en, thing.es), (f"to {receiver.en}", f"a {receiver.es}"))

    def likes(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        return sx.likes(subject, self._object(lx.LIKE), mode, form)

    def is_tall(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        """An adjective, which agrees with the subject."""
        adjective = self.pick(ADJECTIVES[subject.kind])
        group = self._described(subject, adjective, mode, form)._replace(subject_last=True)
        very = ("very", "muy") if adjective in GRADED and self.chance(0.3) else ("", "")
        agreeing = adjective.agreeing(subject.feminine, subject.plural)
        return group.then(very, (adjective.en, agreeing))

    def is_taller(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        """A comparison: es más alto que el rey."""
        adjective = self.pick(LASTING[subject.kind])
        other = self.noun([n for n in OF_KIND[subject.kind] if n.en[0] != subject.head])
        spanish = f"más {adjective.agreeing(subject.feminine, subject.plural)} que {other.es}"
        english = f"{adjective.comparative} than {other.en}"
        return self._described(subject, adjective, mode, form).then((english, spanish))

    def _described(
        self, subject: NounPhrase, adjective: lx.Adjective, mode: str, form: Form
    ) -> Predicate:
        if subject.head:
            self.combinations.add((adjective.en, subject.head))
        return sx.state_group(adjective.copula, subject.person, mode, form)

    def is_there(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        """A place: is behind the house, is on the table."""
        group = sx.state_group("estar", subject.person, mode, form)
        if subject.kind == "person" or self.chance(0.5):
            return group.then(self.place())
        en, es = self.pick((("on", "sobre"), ("under", "debajo de")))
        support = self.noun([n for n in SUPPORTS if n.en[0] != subject.head])
        return group.then((f"{en} {support.en}", f"{es} {support.es}"))

    def feels(self, subject: NounPhrase, mode: str, form: Form) -> Predicate:
        """English is hungry, Spanish has hunger."""
        group = sx.state_group("tener", subject.person, mode, form)
        return group.then(self.pick(FEELINGS))

    # Whole sentences: a clause, and whether it is a question.

    def _topic(self, form: Form) -> tuple[NounPhrase, Predicate, Sequence[Pair]]:
        """A subject, what is said of it, and the times when it can be so."""
        topic = self.pick(_TOPICS)
        subject, mode = topic.subject(self), self.pick(topic.modes)
        times = TIMES["modal" if mode in lx.MODALS else mode] if topic.passes else ()
        return subject, topic.predicate(self, subject, mode, form), times

    def states(self) -> tuple[Pair, bool]:
        subject, predicate, times = self._topic("denies" if self.chance(0.25) else "says")
        en, es = sx.statement(subject, predicate)
        if times and self.chance(0.25):
            when_en, when_es = self.pick(times)
            if self.chance(0.3):
                return (f"{when_en} {en}", f"{when_es} {es}"), False
            return (f"{en} {when_en}", f"{es} {when_es}"), False
        return (en, es), False

    def asks_whether(self) -> tuple[Pair, bool]:
        subject, predicate, _ = self._topic("asks")
        return sx.question(subject, predicate), True

    def asks_where(self) -> tuple[Pair, bool]:
        """Questions of place, time and reason: where, when, why."""
        self._adjective_rate = 0.2
        subject, mode = self.person(), self.pick(ACTION_MODES)
        predicate = self.pick((self.does, self.helps_her, self.gives))(subject, mode, "asks")
        return sx.question(subject, predicate, self.pick(QUESTION_WORDS)), True

    def asks_what(self) -> tuple[Pair, bool]:
        """Questions for the object (what, who, how many) or the subject (who)."""
        asked = self.pick(("what", "who", "how many", "subject"))
        mode = self.pick(ACTION_MODES)
        if asked == "subject":
            who = NounPhrase("who", "quién", 2, feminine=False)
            return sx.statement(who, self.does(who, mode, "says")), True
        subject, verb = self.person(), self.pick(ON_PERSONS if asked == "who" else ON_THINGS)
        asking = ("who", "a quién") if asked == "who" else ("what", "qué")
        if asked == "how many" and (countable := [n for n in OBJECTS[verb] if n.en[1]]):
            noun = self.pick(countable)
            self.combinations.add((verb.en[0], noun.en[0]))
            how_many = "cuántas" if noun.feminine else "cuántos"
            asking = (f"how many {noun.en[1]}", f"{how_many} {noun.es[1]}")
        return sx.question(subject, sx.verb_group(verb, subject.person, mode, "asks"), asking), True

    def there_is(self) -> tuple[Pair, bool]:
        """There are two dogs in the garden: hay dos perros en el jardín."""
        thing, mode = self.noun(MOVABLE + PERSONS, INDEFINITE), self.pick(sx.TENSES)
        be = ("will", "be") if mode == "future" else (sx.BE[mode][thing.person], "")
        place = self.place()
        asks = self.chance(0.3)
        order = (be[0], "there", be[1]) if asks else ("there", *be)
        en = sx.words(*order, thing.en, place[0])
        return (en, sx.words(sx.THERE_IS[mode], thing.es, place[1])), asks

    def does_twice(self) -> tuple[Pair, bool]:
        """A pronoun takes the gender of the noun it stands for: buys the apple and eats it."""
        self._adjective_rate = 0.25
        subject, mode, first = self.person(), self.pick(sx.TENSES), self.pick(lx.ACTIONS)
        thing = self._object(first)
        second = self.pick([v for v in AGAIN[thing.head] if v is not first])
        self.combinations.add((second.en[0], thing.head))
        once = sx.verb_group(first, subject.person, mode, "says").then(thing.as_object)
        en, es = sx.statement(subject, once)
        denies = self.chance(0.5)
        link = ("but", "pero") if denies else ("and", "y")
        pronoun, clitic = thing.object_pronoun
        again = sx.verb_group(second, subject.person, mode, "denies" if denies else "says", clitic)
        en_again = sx.words(en, link[0], again.aux, again.verb, pronoun)
        return (en_again, sx.words(es, link[1], again.es_verb)), False

    def who_is_tall(self) -> tuple[Pair, bool]:
        """A relative clause: the woman who sells the hats is tall."""
        self._adjective_rate = 0.15
        person = self.noun(PERSONS)
        relative = self.pick((self.does, self.helps_her))(person, self.pick(sx.TENSES), "says")
        en, es = sx.statement(person._replace(en="who", es="que"), relative)
        subject = person._replace(en=f"{person.en} {en}", es=f"{person.es} {es}")
        main = self.pick((self.is_tall, self.is_tall, self.feels))
        return sx.statement(subject, main(subject, self.pick(sx.TENSES), "says")), False

    def thinks(self) -> tuple[Pair, bool]:
        """A clause within a clause: the boy says that the king is tired."""
        self._adjective_rate = 0.15
        subject = self.person()
        main = sx.verb_group(self.pick(lx.SAYING), subject.person, "present", "says")
        en, es = sx.statement(subject, main)
        said, predicate, _ = self._topic("says")
        en_said, es_said = sx.statement(said, predicate)
        return (f"{en} that {en_said}", f"{es} que {es_said}"), False


AGAIN = {n.en[0]: [v for v in lx.ACTIONS if v.takes(n)] for n in lx.NOUNS}


@dataclass(frozen=True)
class _Topic:
    """A topic of clauses: how often it comes, who, what about them, in which modes, and whether it
    is so for a time only."""

    weight: int
    subject: Callable[[_Composer], NounPhrase]
    predicate: Callable[[_Composer, NounPhrase, str, Form], Predicate]
    modes: Sequence[str]
    passes: bool = True


_TOPICS = [
    topic
    for topic in (
        _Topic(6, _Composer.person, _Composer.does, ACTION_MODES),
        _Topic(2, _Composer.person, _Composer.helps_her, ACTION_MODES),
        _Topic(3, _Composer.person_or_animal, _Composer.acts, ACTION_MODES),
        _Topic(3, _Composer.person, _Composer.gives, ACTION_MODES),
        _Topic(2, _Composer.person, _Composer.likes, sx.TENSES, passes=False),
        _Topic(3, _Composer.anything, _Composer.is_tall, sx.TENSES, passes=False),
        _Topic(1, _Composer.anything, _Composer.is_taller, sx.TENSES, passes=False),
        _Topic(1, _Composer.movable, _Composer.is_there, sx.TENSES),
        _Topic(1, _Composer.person_or_animal, _Composer.feels, sx.TENSES),
    )
    for _ in range(topic.weight)
]
_KINDS: list[Callable[[_Composer], tuple[Pair, bool]]] = [
    *[_Composer.states] * 10,
    *[_Composer.asks_whether] * 3,
    _Composer.asks_where,
    _Composer.asks_what,
    _Composer.there_is,
    *[_Composer.does_twice] * 2,
    _Composer.who_is_tall,
    _Composer.thinks,
]
