"""The built-in corpus: correct, systematic, large, and held out by word combinations."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
import sacrebleu

from tinygrad_tx.data.builtin import grammar
from tinygrad_tx.data.builtin import lexicon as lx
from tinygrad_tx.data.builtin import syntax as sx
from tinygrad_tx.data.builtin.grammar import Split, reserved_for
from tinygrad_tx.data.builtin.morphology import conjugate_es, plural_en, plural_es
from tinygrad_tx.data.builtin.sentences import MAX_WORDS, Sentence, compose
from tinygrad_tx.data.builtin.syntax import NounPhrase, Pair, Predicate
from tinygrad_tx.errors import UserError

Pairs = list[tuple[str, str]]


def words(text: str) -> list[str]:
    return re.findall(r"\w+|'", text.lower())


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    """50,000 sentences as they come, of all splits, repetitions included."""
    rng = random.Random(0)
    return [compose(rng) for _ in range(50_000)]


@pytest.fixture(scope="module")
def train() -> Pairs:
    return grammar.pairs("train", 5000)


@pytest.fixture(scope="module")
def test() -> Pairs:
    return grammar.pairs("test", 250)


# The words of both languages, put together by syntax.py


def noun(
    text: str, plural: bool = False, the: str = "the", owner: NounPhrase | None = None
) -> NounPhrase:
    """A noun phrase from its English words: "old red car"."""
    *adjectives, head = text.split()
    entry = next(n for n in lx.NOUNS if n.en[0] == head)
    described = [
        next(a for a in lx.ADJECTIVES if a.en == word and (a.before or entry.kind in a.kinds))
        for word in adjectives
    ]
    determiner = next(d for d in lx.DETERMINERS if the in d.en)
    return sx.noun_phrase(entry, plural, determiner, described, owner)


def pronoun(text: str) -> NounPhrase:
    p = next(p for p in lx.PRONOUNS if p.en == text)
    return NounPhrase(p.en, p.es, p.person, p.feminine)


@pytest.mark.parametrize(
    ("phrase", "en", "es"),
    [
        (noun("red car"), "the red car", "el coche rojo"),
        (noun("red door", plural=True), "the red doors", "las puertas rojas"),
        (noun("expensive blue coat", the="a"), "an expensive blue coat", "un abrigo azul caro"),
        (noun("blue shirt", plural=True, the="two"), "two blue shirts", "dos camisas azules"),
        (noun("first young girl"), "the first young girl", "la primera niña joven"),
        (noun("first boy"), "the first boy", "el primer niño"),
        (noun("last city", plural=True), "the last cities", "las últimas ciudades"),
        (noun("young man", plural=True, the="many"), "many young men", "muchos hombres jóvenes"),
        (noun("cold water"), "the cold water", "el agua fría"),
        (noun("cold water", the="my"), "my cold water", "mi agua fría"),
        (noun("eagle", the="a"), "an eagle", "un águila"),
        (noun("eagle", plural=True), "the eagles", "las águilas"),
        (noun("first eagle"), "the first eagle", "la primera águila"),
        (noun("lion", plural=True, the="our"), "our lions", "nuestros leones"),
        (noun("house", owner=noun("old king")), "the old king's house", "la casa de el rey viejo"),
        (noun("dog", owner=noun("girl", plural=True)), "the girls' dog", "el perro de las niñas"),
        (
            noun("hat", owner=noun("man", plural=True)),
            "the men's hat",
            "el sombrero de los hombres",
        ),
    ],
)
def test_noun_phrases(phrase: NounPhrase, en: str, es: str) -> None:
    assert (phrase.en, phrase.es) == (en, es)


def written(subject: NounPhrase, form: sx.Form, group: Predicate, *tails: Pair) -> Pair:
    clause = sx.question if form == "asks" else sx.statement
    return sx.written(clause(subject, group.then(*tails) if tails else group), form == "asks")


def act(subject: NounPhrase, base: str, mode: str, *tails: Pair, form: sx.Form = "says",
        clitic: str = "", adverb: str = "") -> Pair:  # fmt: skip
    every = (*lx.ACTIONS, *lx.INTRANSITIVES, *lx.MOTIONS, *lx.GIFTS)
    verb = next(v for v in every if v.en[0] == base)
    group = sx.verb_group(verb, subject.person, mode, form, clitic, adverb)
    return written(subject, form, group, *tails)


def tired(subject: NounPhrase, mode: str, form: sx.Form = "says") -> Pair:
    adjective = next(a for a in lx.ADJECTIVES if a.en == "tired")
    group = sx.state_group("estar", subject.person, mode, form)._replace(subject_last=True)
    agreeing = adjective.agreeing(subject.feminine, subject.plural)
    return written(subject, form, group, (adjective.en, agreeing))


def like(subject: NounPhrase, thing: NounPhrase, mode: str, form: sx.Form = "says") -> Pair:
    return written(subject, form, sx.likes(subject, thing, mode, form))


def hungry(subject: NounPhrase, mode: str) -> Pair:
    group = sx.state_group("tener", subject.person, mode, "says")
    return written(subject, "says", group, ("hungry", "hambre"))


ME, HE, THEY = pronoun("I"), pronoun("he"), pronoun("they")
BOY, GIRLS, APPLES = noun("boy"), noun("girl", plural=True), noun("apple", plural=True)
COUPLE = NounPhrase("Ana and the boy", "Ana y el niño", 4, feminine=False)
HOUSE, SEE_BOY, SEE_GIRLS = noun("house").as_object, BOY.as_object, GIRLS.as_object
BOOK, TO_BOY, WITH_ME = ("the book", "el libro"), ("to the boy", "a el niño"), ("with me", "con mí")
TO_MARKET, A_KEY = ("to the market", "a el mercado"), ("a key", "una llave")

# What must come out: English and Spanish as people write them.
SENTENCES = {
    # Tenses, persons, dropped pronouns
    act(ME, "buy", "present", HOUSE): "I buy the house. Compro la casa.",
    act(HE, "buy", "past", HOUSE): "He bought the house. Él compró la casa.",
    act(THEY, "buy", "future", HOUSE): "They will buy the house. Ellos comprarán la casa.",
    # Negation, modals and adverbs
    act(BOY, "buy", "present", HOUSE, form="denies"): (
        "The boy does not buy the house. El niño no compra la casa."
    ),
    act(GIRLS, "buy", "past", HOUSE, form="denies"): (
        "The girls did not buy the house. Las niñas no compraron la casa."
    ),
    act(BOY, "buy", "can", HOUSE, form="denies"): (
        "The boy cannot buy the house. El niño no puede comprar la casa."
    ),
    act(
        BOY, "buy", "want", HOUSE
    ): "The boy wants to buy the house. El niño quiere comprar la casa.",
    act(BOY, "buy", "want", HOUSE, form="denies"): (
        "The boy does not want to buy the house. El niño no quiere comprar la casa."
    ),
    act(BOY, "buy", "present", HOUSE, adverb="never"): (
        "The boy never buys the house. El niño nunca compra la casa."
    ),
    # Questions
    act(BOY, "buy", "present", HOUSE, form="asks"): (
        "Does the boy buy the house? ¿Compra el niño la casa?"
    ),
    act(GIRLS, "buy", "must", HOUSE, form="asks"): (
        "Must the girls buy the house? ¿Deben las niñas comprar la casa?"
    ),
    tired(GIRLS, "present", "asks"): "Are the girls tired? ¿Están cansadas las niñas?",
    # Objects: the personal a, contractions, clitics
    act(ME, "see", "present", SEE_GIRLS): "I see the girls. Veo a las niñas.",
    act(ME, "see", "past", SEE_BOY): "I saw the boy. Vi al niño.",
    act(BOY, "see", "present", ("her", ""), form="denies", clitic="la"): (
        "The boy does not see her. El niño no la ve."
    ),
    act(BOY, "see", "want", ("me", ""), clitic="me"): (
        "The boy wants to see me. El niño me quiere ver."
    ),
    act(ME, "give", "past", BOOK, TO_BOY, clitic="le"): (
        "I gave the book to the boy. Le di el libro al niño."
    ),
    act(THEY, "go", "past", TO_MARKET, WITH_ME): (
        "They went to the market with me. Ellos fueron al mercado conmigo."
    ),
    act(BOY, "look", "past", A_KEY): "The boy looked for a key. El niño buscó una llave.",
    # Estar, hunger, liking
    tired(GIRLS, "past", "denies"): "The girls were not tired. Las niñas no estaban cansadas.",
    tired(HE, "future", "denies"): "He will not be tired. Él no estará cansado.",
    hungry(BOY, "present"): "The boy is hungry. El niño tiene hambre.",
    like(BOY, APPLES, "present"): "The boy likes the apples. Al niño le gustan las manzanas.",
    like(ME, APPLES, "present", "denies"): "I do not like the apples. No me gustan las manzanas.",
    like(COUPLE, APPLES, "past"): (
        "Ana and the boy liked the apples. A Ana y al niño les gustaron las manzanas."
    ),
    like(GIRLS, BOY, "past", "asks"): "Did the girls like the boy? ¿Les gustó el niño a las niñas?",
}


@pytest.mark.parametrize(("pair", "expected"), SENTENCES.items())
def test_sentences(pair: Pair, expected: str) -> None:
    assert " ".join(pair) == expected


@pytest.mark.parametrize(
    ("infinitive", "tense", "forms"),
    [
        ("comprar", "present", "compro compras compra compramos compran"),
        ("beber", "past", "bebí bebiste bebió bebimos bebieron"),
        ("abrir", "present", "abro abres abre abrimos abren"),
        ("buscar", "past", "busqué buscaste buscó buscamos buscaron"),
        ("vender", "future", "venderé venderás venderá venderemos venderán"),
        ("encontrar", "present", "encuentro encuentras encuentra encontramos encuentran"),
        ("traer", "past", "traje trajiste trajo trajimos trajeron"),
        ("estar", "imperfect", "estaba estabas estaba estábamos estaban"),
        ("tener", "imperfect", "tenía tenías tenía teníamos tenían"),
        ("ser", "imperfect", "era eras era éramos eran"),
        ("ir", "future", "iré irás irá iremos irán"),
        ("dormir", "past", "dormí dormiste durmió dormimos durmieron"),
    ],
)
def test_conjugation(infinitive: str, tense: str, forms: str) -> None:
    assert lx.conjugation(infinitive, tense) == tuple(forms.split())


def test_inflection() -> None:
    assert conjugate_es("llegar", "past")[0] == "llegué"
    assert conjugate_es("empezar", "past")[0] == "empecé"
    english = {"box": "boxes", "city": "cities", "key": "keys", "tomato": "tomatoes", "cup": "cups"}
    assert {word: plural_en(word) for word in english} == english
    spanish = {"pez": "peces", "león": "leones", "ciudad": "ciudades", "rey": "reyes", "té": "tés"}
    assert {word: plural_es(word) for word in spanish} == spanish


# What people see


def test_sentences_are_well_formed(sentences: list[Sentence]) -> None:
    noun_forms = {form: n for n in lx.NOUNS for form in n.es if form}
    del noun_forms["cocina"]  # also a form of cook, which may follow the pronouns la and las
    articles = {"el": 0, "un": 0, "la": 1, "una": 1, "los": 2, "las": 3}
    for s in sentences:
        assert re.fullmatch(r"[A-Z][A-Za-z' ]+[.?]", s.en), s
        assert re.fullmatch(r"[A-ZÉÁ][a-zA-Záéíóúñ ]+\.|¿[A-ZÉÁ][a-zA-Záéíóúñ ]+\?", s.es), s
        assert s.en.endswith("?") == s.es.endswith("?")
        assert 3 <= len(s.en.split()) <= MAX_WORDS
        assert "  " not in s.en + s.es
        assert not re.search(r"\b(a el|de el|con mí|con ti)\b", s.es), s
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", s.en), s
        for article, word in re.findall(r"\b(el|un|la|una|los|las) (\w+)", s.es.lower()):
            if n := noun_forms.get(word):
                plural = word == n.es[1]
                expected = 2 * plural + n.feminine
                if n.takes_el and not plural:
                    expected = 0
                assert articles[article] == expected, s


def test_every_construction_occurs(sentences: list[Sentence]) -> None:
    text = "\n".join(f"{s.en} | {s.es}" for s in sentences)
    for pattern in CONSTRUCTIONS:
        assert re.search(pattern, text, re.MULTILINE), pattern


CONSTRUCTIONS = (
    r"does not .* \| .* no ",
    r"cannot",
    r"^Does .* \| ¿",
    r"What .* \| ¿Qué",
    r"How many .*¿Cuántas",
    r"Who .* ¿A quién",
    r"Who .* ¿Quién",
    r"Why .* ¿Por qué",
    r"'s .* (del|de la|de) ",
    r" al ",
    r"conmigo",
    r"an eagle .* un águila",
    r"the water .* el agua",
    r"likes .* \| (A|Al) .* le gustan? ",
    r"never .* nunca ",
    r" it\. \| .* (y|pero no) (lo|la) ",
    r" them\. \| .* (y|pero no) las ",
    r"is hungry\. .* tiene hambre",
    r"taller than .* más alt[oa] que ",
    r"who .* is .* \| .* que .* (es|está) ",
    r"says that .* dice que ",
    r"There are .* \| Hay ",
    r"^I \w+ .* \| [A-Z]\w+o ",
    r"gave .* to the .* \| .* (le|les) ",
    r"Tomorrow .* \| Mañana ",
)


def test_english_decides_spanish(sentences: list[Sentence]) -> None:
    translations = defaultdict(set)
    for s in sentences:
        translations[s.en].add(s.es)
    assert len(translations) > 45_000
    assert not [en for en, es in translations.items() if len(es) > 1]


def test_vocabulary(train: Pairs, test: Pairs) -> None:
    """At least 300 word types a side, none of which first occurs in held-out sentences."""
    for side in (0, 1):
        types = Counter(word for pair in train for word in words(pair[side]))
        assert len(types) >= 300
    known = {word for pair in train for word in words(pair[0])}
    assert {word for pair in test for word in words(pair[0])} <= known


def test_millions_of_pairs(sentences: list[Sentence]) -> None:
    """The bound counts one form of sentence, which does occur; two samples hardly share any."""
    assert grammar.count("train") > 2_000_000
    assert grammar.count("valid") > 100_000
    assert grammar.count("test") > 100_000
    people = "|".join(n.en[0] for n in lx.NOUNS if n.kind == "person")
    form = re.compile(rf"The \w+ ({people}) \w+ (\w+ )?the \w+ \w+\.")
    assert any(form.fullmatch(s.en) for s in sentences)
    half = len(sentences) // 2
    shared = {s.en for s in sentences[:half]} & {s.en for s in sentences[half:]}
    assert len(shared) < 0.1 * half


# Splits


def test_pairs_are_distinct_and_deterministic(train: Pairs) -> None:
    assert len(train) == len(set(train)) == len({en for en, _ in train}) == 5000
    assert grammar.pairs("train", 300) == train[:300]
    assert grammar.pairs("train", 300, seed=1) != train[:300]
    assert grammar.pairs("valid", 0) == []


def test_the_same_in_every_process() -> None:
    code = "from tinygrad_tx.data import grammar; print(grammar.pairs('test', 40))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            check=True,
            timeout=60,
        ).stdout.decode()
        for seed in ("1", "2")
    }
    assert outputs == {f"{grammar.pairs('test', 40)}\n"}


def reserved_bigrams(text: str, split: Split) -> list[tuple[str, str]]:
    """Reserved pairs of an adjective and the noun right after it, found in the text alone."""
    nouns = {form: n.en[0] for n in lx.NOUNS for form in n.en if form}
    adjectives = {a.en for a in lx.ADJECTIVES}
    found = re.findall(r"(?=\b(\w+) (\w+))", text.lower())
    return [
        (one, nouns[other])
        for one, other in found
        if one in adjectives and other in nouns and reserved_for(one, nouns[other]) == split
    ]


def test_held_out_combinations_are_never_trained_on(train: Pairs, test: Pairs) -> None:
    valid = grammar.pairs("valid", 250)
    assert not {en for en, _ in train} & {en for en, _ in test}
    assert not {en for en, _ in valid} & {en for en, _ in test}
    for pairs in (train, valid):
        assert not [en for en, _ in pairs if reserved_bigrams(en, "test")]
    for pairs in (train, test):
        assert not [en for en, _ in pairs if reserved_bigrams(en, "valid")]
    assert sum(bool(reserved_bigrams(en, "test")) for en, _ in test) > 50
    assert sum(bool(reserved_bigrams(en, "valid")) for en, _ in valid) > 50


def test_splits_go_by_combinations(sentences: list[Sentence]) -> None:
    splits: Counter[str | None] = Counter()
    for s in sentences:
        of_pairs = {reserved_for(*pair) for pair in s.combinations}
        split = grammar.split_of(s.combinations)
        splits[split] += 1
        if split is None:
            assert {"valid", "test"} <= of_pairs
        elif split == "train":
            assert of_pairs <= {"train"}
        else:
            assert split in of_pairs <= {split, "train"}
    assert splits["train"] > 0.75 * len(sentences)
    assert min(splits["valid"], splits["test"]) > 0.03 * len(sentences)


def test_every_word_keeps_enough_combinations_to_learn() -> None:
    """The hash must not reserve (nearly) all that a word can be combined with."""
    possible = [
        (v.en[0], n.en[0]) for v in (*lx.ACTIONS, *lx.GIFTS) for n in lx.NOUNS if v.takes(n)
    ]
    possible += [(a.en, n.en[0]) for a in lx.ADJECTIVES for n in lx.NOUNS if n.kind in a.kinds]
    trained: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for pair in possible:
        total.update(pair)
        if reserved_for(*pair) == "train":
            trained.update(pair)
    assert all(trained[word] >= 0.5 * total[word] for word in total)


@pytest.mark.parametrize(
    ("split", "seed", "message"),
    [("dev", 0, "unknown split 'dev'; choose one of train, valid, test"), ("test", -1, "seed")],
)
def test_bad_arguments(split: Split, seed: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        grammar.pairs(split, 3, seed)


def test_more_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "compose", lambda rng: Sentence("A.", "B.", frozenset()))
    with pytest.raises(UserError, match="ran out at 1 train pairs of 2"):
        grammar.pairs("train", 2)


# How hard it is


def dictionary(pairs: Pairs) -> dict[str, str]:
    """The most probable Spanish word for each English one, by IBM model 1, which expectation
    maximisation fits to the pairs."""
    corpus = [(words(en), words(es)) for en, es in pairs]
    probability: dict[tuple[str, str], float] = defaultdict(lambda: 1.0)
    for _ in range(5):
        counts: dict[tuple[str, str], float] = defaultdict(float)
        totals: dict[str, float] = defaultdict(float)
        for english, spanish in corpus:
            for f in spanish:
                norm = sum(probability[e, f] for e in english)
                for e in english:
                    share = probability[e, f] / norm
                    counts[e, f] += share
                    totals[e] += share
        probability = defaultdict(float, {(e, f): c / totals[e] for (e, f), c in counts.items()})
    best: dict[str, str] = {}
    for e, f in sorted(probability, key=probability.__getitem__):
        best[e] = f
    return best


def test_a_dictionary_does_not_translate(train: Pairs, test: Pairs) -> None:
    """Word by word, with capitals and question marks given for free, BLEU stays far below 50."""
    entries = dictionary(train[:1200])
    assert entries["red"] in ("rojo", "roja")
    assert entries["and"] == "y"
    guesses = []
    for en, _ in test:
        text = " ".join(entries.get(word, word) for word in words(en)).capitalize()
        guesses.append(f"¿{text}?" if en.endswith("?") else f"{text}.")
    references = [es for _, es in test]
    assert sacrebleu.corpus_bleu(references, [references]).score == pytest.approx(100)
    assert sacrebleu.corpus_bleu(guesses, [references]).score < 30
