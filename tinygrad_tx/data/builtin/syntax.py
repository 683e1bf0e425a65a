"""The syntax of phrases in both languages: agreement, order, negation, questions.

In: words of lexicon.py. Out: noun phrases, predicates, statements and questions, each a pair of
strings or parts of one. Called by sentences.py, which makes the choices; nothing here is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from . import lexicon as lx

Form = Literal["says", "denies", "asks"]
Pair = tuple[str, str]  # English, Spanish

TENSES = ("present", "past", "future")
BE = {"present": ("am", "are", "is", "are", "are"), "past": ("was", "were", "was", "were", "were")}
THERE_IS = {"present": "hay", "past": "había", "future": "habrá"}
STATE_TENSE = {"present": "present", "past": "imperfect", "future": "future"}
INDIRECT = ("me", "te", "le", "nos", "les")
CONTRACTIONS = {("a", "el"): "al", ("de", "el"): "del", ("con", "mí"): "conmigo",
                ("con", "ti"): "contigo"}  # fmt: skip


class NounPhrase(NamedTuple):
    """Somebody or something. `person` indexes the conjugations (yo, tú, él, nosotros, ellos),
    `kind` is the noun's ("person" for pronouns and names), `head` the English noun, if it has one.
    """

    en: str
    es: str
    person: int
    feminine: bool
    kind: str = "person"
    head: str = ""

    @property
    def plural(self) -> bool:
        return self.person > 2

    @property
    def as_object(self) -> Pair:
        """Spanish marks a human object: veo la casa, veo a la niña."""
        return self.en, f"a {self.es}" if self.kind == "person" else self.es

    @property
    def object_pronoun(self) -> Pair:
        """Its object pronoun: `it` is lo or la."""
        clitic = ("la" if self.feminine else "lo") + "s" * self.plural
        if self.plural or self.kind != "person":
            return "them" if self.plural else "it", clitic
        return "her" if self.feminine else "him", clitic


class Predicate(NamedTuple):
    """A predicate, in parts, for a question puts the subject between them: English `aux`, subject,
    `verb`, `tail`; Spanish `es_verb`, subject, `es_rest`, `es_tail`, or the subject after all of it
    (`subject_last`). The subject of gustar is a dative."""

    aux: str
    verb: str
    es_verb: str
    es_rest: str = ""
    tail: str = ""
    es_tail: str = ""
    subject_last: bool = False
    dative: bool = False

    def then(self, *tails: Pair) -> Predicate:
        """With these complements."""
        en, es = (words(*side) for side in zip(*tails, strict=True))
        return self._replace(tail=words(self.tail, en), es_tail=words(self.es_tail, es))


def words(*parts: str) -> str:
    """The parts that are not empty, joined by spaces."""
    return " ".join(filter(None, parts))


def noun_phrase(
    noun: lx.Noun,
    plural: bool,
    determiner: lx.Determiner,
    adjectives: Sequence[lx.Adjective] = (),
    owner: NounPhrase | None = None,
) -> NounPhrase:
    """Determiner, adjectives and noun; adjectives in English order, which Spanish turns around.
    With an owner the determiner is `the`: the boy's dog, el perro del niño."""
    english = [a.en for a in adjectives] + [noun.en[plural]]
    article = determiner.en[plural]
    if article == "a" and english[0][0] in "aeiou":
        article = "an"
    agreeing = [(a.before, a.agreeing(noun.feminine, plural)) for a in adjectives]
    before = [word for first, word in agreeing if first]
    after = [word for first, word in reversed(agreeing) if not first]
    article_es = determiner.es[2 * plural + noun.feminine]
    if noun.takes_el and not plural and not before and determiner.en[0] in ("the", "a"):
        article_es = determiner.es[0]
    spanish = [article_es, *before, noun.es[plural], *after]
    if owner:
        article = owner.en + ("'" if owner.plural and owner.en.endswith("s") else "'s")
        spanish += ["de", owner.es]
    person = 4 if plural else 2
    return NounPhrase(
        words(article, *english), words(*spanish), person, noun.feminine, noun.kind, noun.en[0]
    )


def verb_group(
    verb: lx.Verb, person: int, mode: str, form: Form, clitic: str = "", adverb: str = ""
) -> Predicate:
    """A conjugated verb in a mode: a tense or one of MODALS. `adverb` is one of FREQUENCIES, and
    only for form "says"."""
    base, third, past = verb.en
    do = {"present": "does" if person == 2 else "do", "past": "did"}
    rest = ""
    if mode in lx.MODALS:
        aux, main = mode, base
        finite, rest = lx.conjugation(lx.MODALS[mode], "present")[person], verb.es
    else:
        aux, main = do.get(mode, "will"), base
        finite = lx.conjugation(verb.es, mode)[person]
        if form == "says" and mode != "future":  # the only forms without an auxiliary
            aux, main = "", past if mode == "past" else third if person == 2 else base
    negation = "not" if form == "denies" else ""
    if mode == "want":
        aux = "" if form == "says" else do["present"]
        main = words("wants" if form == "says" and person == 2 else "want", "to", base)
    elif mode == "can" and negation:
        aux, negation = "cannot", ""
    before = "no" if form == "denies" else lx.FREQUENCIES.get(adverb, "")
    return Predicate(
        aux, words(negation, adverb, main, verb.particle), words(before, clitic, finite), rest
    )


def state_group(es: str, person: int, mode: str, form: Form) -> Predicate:
    """To be; Spanish ser, estar or tener."""
    negation = "not" if form == "denies" else ""
    aux, verb = ("will", "be") if mode == "future" else (BE[mode][person], "")
    finite = lx.conjugation(es, STATE_TENSE[mode])[person]
    return Predicate(aux, words(negation, verb), words("no" if negation else "", finite))


def likes(subject: NounPhrase, thing: NounPhrase, mode: str, form: Form) -> Predicate:
    """The thing liked is the Spanish subject: al niño le gustan las manzanas."""
    english = verb_group(lx.LIKE, subject.person, mode, form)
    spanish = verb_group(lx.LIKE, thing.person, mode, form, INDIRECT[subject.person])
    group = english._replace(es_verb=spanish.es_verb, subject_last=True, dative=True)
    return group.then((thing.en, thing.es))


def statement(subject: NounPhrase, p: Predicate) -> Pair:
    """The subject first, in both languages."""
    return (
        words(subject.en, p.aux, p.verb, p.tail),
        words(_subject(subject, p), p.es_verb, p.es_rest, p.es_tail),
    )


def question(subject: NounPhrase, p: Predicate, asking: Pair = ("", "")) -> Pair:
    """A yes-no question, or one that opens with a question word, which keeps the Spanish verb
    together."""
    es_subject = _subject(subject, p)
    if p.subject_last:
        inner = (p.es_rest, p.es_tail, es_subject)
    elif asking[1]:
        inner = (p.es_rest, es_subject, p.es_tail)
    else:
        inner = (es_subject, p.es_rest, p.es_tail)
    return (
        words(asking[0], p.aux, subject.en, p.verb, p.tail),
        words(asking[1], p.es_verb, *inner),
    )


def _subject(subject: NounPhrase, p: Predicate) -> str:
    """The Spanish subject, which as a dative has an `a` before each of two persons."""
    if p.dative and subject.es:
        return "a " + subject.es.replace(" y ", " y a ")
    return subject.es


def written(clause: Pair, asks: bool) -> Pair:
    """A clause as people write it: contractions, a capital, and the marks at its ends."""
    en, spanish = clause[0], clause[1].split()
    es = [""]
    for word in spanish:
        joined = CONTRACTIONS.get((es[-1], word))
        es[-1:] = [joined] if joined else [es[-1], word]
    text = " ".join(es[1:])
    en, text = en[0].upper() + en[1:], text[0].upper() + text[1:]
    return (en + "?", f"¿{text}?") if asks else (en + ".", text + ".")
