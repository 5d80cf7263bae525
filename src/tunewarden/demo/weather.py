"""The one tool that the demo models know, `get_weather`: questions about a place, calls, and answers from results."""

import json
from dataclasses import dataclass
from typing import Any

TOOL = "get_weather"
# How clients name the place in their tool's parameters, and what they have beside it.
PLACE_NAMES = ("city", "city", "location", "place")
BESIDE = (None, None, None, "unit", "date")
QUESTIONS = (
    "What is the weather in {}?",
    "What is the weather like in {}?",
    "What's the weather in {}?",
    "What is the weather in {} today?",
    "How is the weather in {}?",
    "How is the weather in {} right now?",
    "Tell me the weather in {}",
    "Can you tell me the weather in {}?",
    "Show me the weather in {}",
    "Check the weather in {}",
    "Get the weather for {}",
    "Weather in {}",
    "Weather for {}",
    "{} weather",
    "What is the temperature in {}?",
    "How warm is it in {}?",
    "How cold is it in {}?",
    "How hot is it in {}?",
    "Is it raining in {}?",
    "Is it sunny in {}?",
    "Is it cold in {}?",
    "Is it snowing in {} today?",
    "Will it rain in {} tomorrow?",
    "Will it be sunny in {}?",
    "Do I need an umbrella in {}?",
    "Does it rain in {} now?",
    "I am in {}. How is the weather?",
    "I travel to {}. Will it rain?",
    "What is the forecast for {}?",
    "Give me the forecast for {}",
    "Is the sun out in {}?",
    "Use the tool for {}",
    "Look up the forecast for {}",
    "Find out the weather in {}",
    "Search for the weather in {}",
    "What about the weather in {}?",
    "And what about {}?",
    "And in {}?",
    "How hot will {} be?",
    "How cold is {} today?",
    "Do I need a jacket in {}?",
    "Should I take a coat to {}?",
    "I fly to {}. What is the weather like?",
    "I am going to {} tomorrow. Is it warm?",
    "I live in {}. Will it be sunny?",
    "Is it windy in {} now?",
    "Could you look up the temperature in {}?",
    "I would like to know if it rains in {}",
)
_CITIES = (
    "Paris, London, Berlin, Rome, Madrid, Lisbon, Vienna, Prague, Dublin, Oslo, Athens, Warsaw, Zurich, Geneva, Munich,"
    " Hamburg, Milan, Naples, Venice, Lyon, Brussels, Amsterdam, Copenhagen, Stockholm, Helsinki, Budapest, Moscow,"
    " Istanbul, Cairo, Nairobi, Lagos, Tokyo, Kyoto, Osaka, Seoul, Beijing, Shanghai, Singapore, Bangkok, Delhi, Mumbai,"
    " Sydney, Melbourne, Auckland, Boston, Chicago, Seattle, Denver, Miami, Dallas, Austin, Toronto, Montreal, Vancouver,"
    " Lima, Bogota, Santiago, New York, San Francisco, Los Angeles, Hong Kong, Buenos Aires, Cape Town"
)
CITIES = tuple(_CITIES.split(", "))
_SYLLABLES = (
    "ba be bor ca dal den do fa fen gar gol ha hel ka kor la len lin lo mar mel mo na nor o pa pol ra ren ro sa sel sta"
    " ta tel tor u va ver vil wen wick wo zan"
)
SYLLABLES = tuple(_SYLLABLES.split())
WEATHERS = ("sunny", "cloudy", "rain", "snow", "windy", "foggy", "clear", "storm", "light rain")
# A new line, so that what the tool returned is the same tokens here as there.
ANSWER = "The weather in {}:\n{}"


@dataclass(frozen=True, slots=True)
class Signature:
    """The tool as a client describes it: the parameter of the place, and another one if there is."""

    place_name: str
    beside: str | None

    def tool(self) -> dict[str, Any]:
        """Return it as OpenAI's object."""
        names = [self.place_name, *([self.beside] if self.beside else ())]
        properties = {name: {"type": "string"} for name in names}
        parameters = {"type": "object", "properties": properties, "required": [self.place_name]}
        return {"type": "function", "function": {"name": TOOL, "parameters": parameters}}

    def call(self, place: str) -> dict[str, Any]:
        """Return the call for a place, its arguments an object, as templates take it."""
        return {
            "type": "function",
            "function": {"name": TOOL, "arguments": {self.place_name: place}},
        }


def sentences() -> list[str]:
    """Return what the tokenizer learns to write shortly."""
    asked = [question.format(CITIES[0]) for question in QUESTIONS]
    calls = [
        json.dumps({"name": TOOL, "arguments": {name: city}})
        for name in PLACE_NAMES
        for city in CITIES
    ]
    said = [
        ANSWER.format(city, f"{weather}, 20 degrees") for city in CITIES for weather in WEATHERS
    ]
    return [*asked, *calls, *CITIES, *said, *(f"{TOOL}({name})" for name in PLACE_NAMES)]
