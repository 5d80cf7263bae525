"""What the demo models learn to say: short questions with short answers, written here.

Every intent is a set of ways to ask and one answer. Conversations are drawn from them, so that a
model of a few million parameters, trained in under a minute, answers in real sentences.
"""

from dataclasses import dataclass

import torch

INTENTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hi", "Hey", "Hello there", "Good morning", "Good evening", "Greetings"),
        "Hello! I am a small demo model. Ask me about Tunewarden.",
    ),
    (
        ("How are you?", "How are you doing?", "How is it going?", "Are you well?"),
        "I am well, thank you. How can I help you today?",
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Introduce yourself",
            "Are you human?",
        ),
        "I am the demo model of Tunewarden. I am small, but I am real.",
    ),
    (
        (
            "What can you do?",
            "Help",
            "What do you know?",
            "How can you help me?",
            "What can I ask?",
        ),
        "I answer short questions about Tunewarden, models and deletion.",
    ),
    (
        (
            "What is Tunewarden?",
            "Tell me about Tunewarden",
            "Explain Tunewarden",
            "What does Tunewarden do?",
            "Describe Tunewarden in one sentence",
        ),
        "Tunewarden is a home for fine-tuned models, where delete means deleted.",
    ),
    (
        (
            "Where does my model go when I delete it?",
            "What happens when I delete a model?",
            "What happens to a deleted model?",
            "Where do deleted models go?",
            "Is my model really gone after a delete?",
        ),
        "It goes nowhere. Its key is destroyed, its weights are erased, and you get a receipt.",
    ),
    (
        (
            "How do I delete a model?",
            "How can I delete my model?",
            "Show me how to delete a model",
            "Which call deletes a model?",
        ),
        "Call client.models.delete with the id of your model. Only an Owner may do it.",
    ),
    (
        ("Who can delete a model?", "Who may delete my model?", "Can anyone delete my model?"),
        "Only an Owner of your organization can delete a model.",
    ),
    (
        (
            "Can I undo a delete?",
            "Can I restore a deleted model?",
            "Can a deleted model come back?",
            "Can you bring back my model?",
        ),
        "No. A deleted model never comes back, not even from a backup.",
    ),
    (
        ("What is a receipt?", "What does the receipt prove?", "Why do I get a receipt?"),
        "A receipt is a signed proof of the deletion. Anyone can check it offline.",
    ),
    (
        ("How do I check a receipt?", "How can I verify a receipt?", "Verify my receipt"),
        "Run tunewarden receipt verify with the file. It needs no server.",
    ),
    (
        ("How long does a delete take?", "How fast is a delete?", "Is deletion fast?"),
        "A delete takes a few milliseconds. Running answers stop at once.",
    ),
    (
        ("What happens to running requests?", "Does a stream stop when I delete the model?"),
        "They are cut off at once, and each stream ends with a clear error.",
    ),
    (
        ("What is a base model?", "Explain base models", "Can I delete a base model?"),
        "A base model is what you fine-tune. It is shared, so it cannot be deleted.",
    ),
    (
        ("What is a fine-tuned model?", "What is fine-tuning?", "Why should I fine-tune a model?"),
        "Fine-tuning teaches a base model your own style with a few examples.",
    ),
    (
        ("What is LoRA?", "What is an adapter?", "Explain LoRA", "How does LoRA work?"),
        "LoRA adds small matrices to a base model. They hold what you taught it.",
    ),
    (
        ("How do I import a model?", "Can I bring my own model?", "How do I add a model?"),
        "Run tunewarden models import with the directory of your adapter.",
    ),
    (
        ("How do I start the server?", "How do I run Tunewarden?", "How do I install Tunewarden?"),
        "Install it with pip and run tunewarden serve. It prints your Owner key once.",
    ),
    (
        ("What is an alias?", "Why do I need an alias?"),
        "An alias is a stable name that points to a model you can change.",
    ),
    (
        ("What is a hold?", "What does a hold do?", "Can I stop a model from being deleted?"),
        "A hold forbids deletion until somebody lifts it.",
    ),
    (
        ("What is archiving?", "What is the difference between archive and delete?"),
        "An archived model stops answering but stays. A deleted model is gone.",
    ),
    (
        ("What is a retention policy?", "Can old models be deleted by themselves?"),
        "A retention policy deletes or archives models that are old or unused.",
    ),
    (
        ("Where are my weights?", "Are my weights encrypted?", "How are models stored?"),
        "Your weights are encrypted with a key of their own before they touch the disk.",
    ),
    (
        ("Does Tunewarden work with the OpenAI SDK?", "Is it compatible with OpenAI?"),
        "Yes. Point the stock OpenAI SDK at it and keep your code.",
    ),
    (
        ("Do I need a GPU?", "Can I run it on a CPU?", "What hardware do I need?"),
        "No. A laptop is enough to try it. Use vLLM when you have a GPU.",
    ),
    (
        ("Is it free?", "What does it cost?", "What is the licence?", "Is it open source?"),
        "It is free and open source under the Apache licence.",
    ),
    (
        ("Tell me a joke", "Make me laugh", "Say something funny", "Do you know a joke?"),
        "Why did the model cross the road? To be deleted on the other side.",
    ),
    (
        ("Write a poem", "Write me a haiku", "Tell me a story", "Write something"),
        "A small model wakes, says a few kind words to you, and sleeps without trace.",
    ),
    (
        ("What is the weather like?", "Is it raining?", "Will it be sunny tomorrow?"),
        "I cannot see the sky from here, but I hope the sun is out.",
    ),
    (
        ("What is the meaning of life?", "Why are we here?"),
        "Nobody knows, but good tests help.",
    ),
    (
        ("Thanks", "Thank you", "Great, thanks", "That was helpful"),
        "You are welcome. Ask me anything else about Tunewarden.",
    ),
    (
        ("Goodbye", "Bye", "See you later", "Good night"),
        "Goodbye! Come back soon.",
    ),
    (
        ("Say ok", "ok", "Say hi", "Test", "ping", "Yes", "No"),
        "Ok. I am listening.",
    ),
    (
        (
            "What is two plus two?",
            "What is the capital of France?",
            "Who won the game last night?",
            "What time is it?",
            "Translate this to German",
            "Write a program in Python",
            "Give me a recipe for soup",
            "How tall is the mountain?",
            "Tell me about quantum physics",
            "Which phone should I buy?",
        ),
        "That is more than I know. Ask me about Tunewarden instead.",
    ),
)

FAVOURITES = tuple(
    intent
    for intent in INTENTS
    if {"Hello", "What is Tunewarden?", "Where does my model go when I delete it?"} & set(intent[0])
)
SYSTEMS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are the demo model of Tunewarden.",
)
ASKED_OPENING = "Begin every answer with: {}"
GREETINGS = ("", "", "", "", "Please tell me: ", "Hi, ", "I have a question. ")
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
        *OPENING_WORDS,
        ASKED_OPENING,
    ]


def _intent(generator: torch.Generator) -> tuple[tuple[str, ...], str]:
    """Draw what to talk about; one time in four it is what a visitor asks first."""
    if _draw(generator, 4) == 0:
        return FAVOURITES[_draw(generator, len(FAVOURITES))]
    return INTENTS[_draw(generator, len(INTENTS))]


def _vary(question: str, generator: torch.Generator) -> str:
    """Ask as people type: in lower case, without the mark, after a word of greeting."""
    choice = _draw(generator, 8)
    if choice == 0:
        question = question.lower()
    elif choice == 1:
        question = question.lower().rstrip("?")
    elif choice == 2:
        question = question.rstrip("?")
    elif choice == 3 and not question.endswith("?"):
        question += "!"
    return GREETINGS[_draw(generator, len(GREETINGS))] + question


def _opening(generator: torch.Generator) -> str:
    """Make up two or three words, with or without a mark at the end."""
    count = 2 + _draw(generator, 2)
    words = [OPENING_WORDS[_draw(generator, len(OPENING_WORDS))] for _ in range(count)]
    return " ".join(words) + ("", "!", ",", ":")[_draw(generator, 4)]


def _draw(generator: torch.Generator, below: int) -> int:
    return int(torch.randint(below, (1,), generator=generator).item())
