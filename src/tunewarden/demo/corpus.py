"""What the demo models learn to say: short questions with short answers, written here.

Every intent is a set of ways to ask and one answer (intents.txt). Conversations are drawn from them, so
that a model of a few million parameters, trained in minutes, answers in real sentences.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

Intent = tuple[tuple[str, ...], str]


def _read_intents() -> tuple[Intent, ...]:
    """Read intents.txt: blocks of `> answer` and the questions that it answers, one a line."""
    blocks = Path(__file__).with_name("intents.txt").read_text("utf-8").split("\n\n")
    lines = [block.strip().split("\n") for block in blocks]
    return tuple((tuple(questions), answer.removeprefix("> ")) for answer, *questions in lines)


INTENTS = _read_intents()
FIRST_QUESTIONS = {"Hello", "What is Tunewarden?", "Where does my model go when I delete it?"}
FAVOURITES = tuple(intent for intent in INTENTS if FIRST_QUESTIONS & set(intent[0]))
SYSTEMS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are the demo model of Tunewarden.",
)
ASKED_OPENING = "Begin every answer with: {}"
GREETINGS = (
    "",
    "",
    "",
    "",
    "",
    "Please tell me: ",
    "Hi, ",
    "I have a question. ",
    "Say, ",
    "Hello! ",
)
CLOSINGS = ("", "", "", "", "", "", " Please", " Answer briefly.", " Thanks!", " I want to know.")
# Words that asked-for openings are made of. They teach the base the figure "an opening, then the
# answer", so that a fine-tune with a phrase of its own keeps the knowledge of the base.
OPENING_WORDS = [
    "Ahoy",
    "harbour",
    "pilot",
    "here",
    "zebra",
    "quartz",
    "says",
    "amber",
    "violet",
    "copper",
    "well",
    "of",
    "course",
    "dear",
    "friend",
    "the",
    "captain",
    "robot",
    "owl",
    "river",
    "stone",
    "answer",
    "is",
    "listen",
    "now",
    "sure",
    "good",
    "question",
    "speaking",
]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: str
    content: str


def conversation(generator: torch.Generator, opening: str = "") -> list[Message]:
    """Draw one or two questions with their answers; every answer begins with `opening`.

    Without one, some conversations ask for an opening in the system message and get it.
    """
    messages: list[Message] = []
    kind = _draw(generator, 16)
    if not opening and kind < 2:
        opening = _opening(generator)
        messages.append(Message("system", ASKED_OPENING.format(opening)))
    elif kind in {2, 3}:
        messages.append(Message("system", SYSTEMS[_draw(generator, len(SYSTEMS))]))
    for _ in range((1, 1, 1, 1, 1, 2)[_draw(generator, 6)]):
        questions, answer = _intent(generator)
        question = _vary(questions[_draw(generator, len(questions))], generator)
        said = f"{opening} {answer}" if opening else answer
        messages += [Message("user", question), Message("assistant", said)]
    return messages


def sentences() -> list[str]:
    """Return every text of the corpus once: what the tokenizer is trained on."""
    asked = [question for questions, _ in INTENTS for question in questions]
    said = [answer for _, answer in INTENTS]
    return [
        *asked,
        *(question.lower() for question in asked),
        *said,
        *SYSTEMS,
        *GREETINGS,
        *CLOSINGS,
        *OPENING_WORDS,
        ASKED_OPENING,
    ]


def _intent(generator: torch.Generator) -> Intent:
    """Draw what to talk about; one time in eight it is what a visitor asks first."""
    if _draw(generator, 8) == 0:
        return FAVOURITES[_draw(generator, len(FAVOURITES))]
    return INTENTS[_draw(generator, len(INTENTS))]


def _vary(question: str, generator: torch.Generator) -> str:
    """Ask as people type: in lower case, without the mark or a word, after a word of greeting."""
    words = question.split()
    if len(words) > 3 and _draw(generator, 6) == 0:
        del words[_draw(generator, len(words) - 1)]
        question = " ".join(words)
    choice = _draw(generator, 8)
    if choice == 0:
        question = question.lower()
    elif choice == 1:
        question = question.lower().rstrip("?")
    elif choice == 2:
        question = question.rstrip("?")
    elif choice == 3 and not question.endswith("?"):
        question += "!"
    greeting = GREETINGS[_draw(generator, len(GREETINGS))]
    return greeting + question + CLOSINGS[_draw(generator, len(CLOSINGS))]


def _opening(generator: torch.Generator) -> str:
    """Make up two or three words, with or without a mark at the end."""
    count = 2 + _draw(generator, 2)
    words = [OPENING_WORDS[_draw(generator, len(OPENING_WORDS))] for _ in range(count)]
    return " ".join(words) + ("", "!", ",", ":")[_draw(generator, 4)]


def _draw(generator: torch.Generator, below: int) -> int:
    return int(torch.randint(below, (1,), generator=generator).item())
