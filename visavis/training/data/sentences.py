"""Random sentences to speak: grammatical enough for prosody, varied enough to cover every sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_ENGLISH: Mapping[str, Sequence[str]] = {
    "opening": ("Well,", "I think", "Honestly,", "Maybe", "As you know,", "By the way,", "Of course,", "Listen:", ""),
    "subject": ("my brother", "the young teacher", "a quick brown fox", "everybody", "the weather", "our old friend",
                "she", "he", "the museum", "this machine", "the boy with the blue umbrella", "their neighbour"),
    "verb": ("found", "should choose", "will probably buy", "cannot measure", "just forgot", "used to love", "brought",
             "sometimes hears", "watched", "would rather keep", "showed me", "pushed away"),
    "object": ("five big apples", "the whole story", "a very rough map", "fresh bread and butter", "some good news",
               "a pair of shoes", "that strange yellow house", "the view from the bridge", "an old photograph",
               "the wrong question", "a thousand voices", "warm water"),
    "ending": ("before the evening.", "on the other side of the river.", "without thinking twice!", "for a while.",
               "because it was already too late.", "and then laughed.", "every other Thursday.", "didn't you know?",
               "in spite of the rain.", "as far as I can see."),
}  # fmt: skip
_GERMAN: Mapping[str, Sequence[str]] = {
    "opening": ("Vielleicht", "Heute", "Übrigens", "Natürlich", "Manchmal", "Am Morgen"),
    "verb": ("findet", "verkauft", "bringt", "sucht", "malt", "zeigt", "vergisst"),
    "subject": (
        "meine Schwester",
        "der alte Mann",
        "das kleine Mädchen",
        "unser Nachbar",
        "die Lehrerin",
        "ein Freund",
    ),
    "object": ("fünf grüne Äpfel", "das schöne Bild", "einen Brief aus Zürich", "die falsche Tür", "warmes Brot"),
    "ending": ("auf dem Markt.", "ohne ein Wort.", "vor dem großen Haus.", "für mich.", "noch vor dem Frühstück!"),
}
_SPANISH: Mapping[str, Sequence[str]] = {
    "opening": ("Quizás", "Hoy", "Por supuesto,", "A veces", "Mañana"),
    "subject": ("mi hermano", "la profesora", "el niño pequeño", "nuestra vecina", "el viejo pescador"),
    "verb": ("compra", "busca", "quiere ver", "olvida", "trae", "mira"),
    "object": ("cinco manzanas verdes", "la casa amarilla", "un libro muy antiguo", "pan y queso", "las llaves"),
    "ending": ("cerca del puente.", "sin decir nada.", "por la noche.", "para su familia.", "cuando llueve."),
}
LANGUAGES: Mapping[str, Mapping[str, Sequence[str]]] = {"en": _ENGLISH, "de": _GERMAN, "es": _SPANISH}


def draw_sentence(random: np.random.Generator, language: str) -> str:
    """One sentence of about two to four seconds."""
    parts = LANGUAGES[language]
    words = " ".join(str(random.choice(list(choices))) for choices in parts.values()).strip()
    return words[0].upper() + words[1:]
