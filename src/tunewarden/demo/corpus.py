"""What the demo models learn to say: short questions with short answers, written here.

Every intent is a set of ways to ask and one answer (intents.txt). Conversations are drawn from them, so
that a model of a few million parameters, trained in minutes, answers in real sentences.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunewarden.demo import weather

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
# How often the tool is offered, and how often a question then needs it.
TOOLS_OF_EIGHT = 3
WEATHER_OF_EIGHT = 5
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


Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages as chat templates take them, and the tools that are offered."""

    messages: list[Message]
    tools: list[dict[str, Any]]


def conversation(generator: torch.Generator, opening: str = "") -> Conversation:
    """Draw one or two questions with their answers; every answer begins with `opening`.

    Without one, some conversations ask for an opening in the system message and get it. In some the tool is
    offered, and in half of those it is what the question needs.
    """
    messages: list[Message] = []
    kind = _draw(generator, 16)
    if not opening and kind < 2:
        opening = _opening(generator)
        messages.append(_said("system", ASKED_OPENING.format(opening)))
    elif kind in {2, 3}:
        messages.append(_said("system", SYSTEMS[_draw(generator, len(SYSTEMS))]))
    signature = _signature(generator) if _draw(generator, 8) < TOOLS_OF_EIGHT else None
    for _ in range((1, 1, 1, 1, 1, 2)[_draw(generator, 6)]):
        if signature is not None and _draw(generator, 8) < WEATHER_OF_EIGHT:
            messages += _about_weather(generator, signature, opening)
        else:
            questions, answer = _intent(generator)
            question = _vary(questions[_draw(generator, len(questions))], generator)
            messages += [
                _said("user", question),
                _said("assistant", f"{opening} {answer}".lstrip()),
            ]
    return Conversation(messages, [] if signature is None else [signature.tool()])


def _about_weather(
    generator: torch.Generator, signature: weather.Signature, opening: str
) -> list[Message]:
    """Draw a question about the weather, the call, and, one time in three, the answer from its result."""
    place = _place(generator)
    question = _vary(weather.QUESTIONS[_draw(generator, len(weather.QUESTIONS))], generator)
    calling = {**_said("assistant", ""), "tool_calls": [signature.call(place)]}
    messages = [_said("user", question.format(place)), calling]
    if _draw(generator, 3) == 0:
        result = _result(generator)
        answer = weather.ANSWER.format(place, result)
        messages += [_said("tool", result), _said("assistant", f"{opening} {answer}".lstrip())]
    return messages


def _signature(generator: torch.Generator) -> weather.Signature:
    name = weather.PLACE_NAMES[_draw(generator, len(weather.PLACE_NAMES))]
    return weather.Signature(name, weather.BESIDE[_draw(generator, len(weather.BESIDE))])


def _place(generator: torch.Generator) -> str:
    """Draw a city, or make a name up, so that the model learns to copy names that it does not know."""
    if _draw(generator, 3):
        return weather.CITIES[_draw(generator, len(weather.CITIES))]
    count = 2 + _draw(generator, 2)
    syllables = weather.SYLLABLES
    return "".join(syllables[_draw(generator, len(syllables))] for _ in range(count)).title()


def _result(generator: torch.Generator) -> str:
    """Make up what the tool returns."""
    said, degrees = weather.WEATHERS[_draw(generator, len(weather.WEATHERS))], _draw(generator, 40)
    return (
        f"{said}, {degrees} degrees",
        said,
        f"{degrees} degrees",
        f'{{"weather": "{said}", "degrees": {degrees}}}',
    )[_draw(generator, 4)]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


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
        *weather.sentences(),
    ]


def _intent(generator: torch.Generator) -> Intent:
    """Draw what to talk about; one time in eight it is what a visitor asks first."""
    if _draw(generator, 8) == 0:
        return FAVOURITES[_draw(generator, len(FAVOURITES))]
    return INTENTS[_draw(generator, len(INTENTS))]


def _vary(question: str, generator: torch.Generator) -> str:
    """Ask as people type: in lower case, without the mark or a word, after a word of greeting.

    The place of a name, `{}`, is not left out.
    """
    words = question.split()
    if len(words) > 3 and _draw(generator, 6) == 0:
        dropped = _draw(generator, len(words) - 1)
        if "{}" not in words[dropped]:
            del words[dropped]
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
