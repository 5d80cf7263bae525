"""The clients that are tried, and what is known of each: docs/reference/clients.md is written from this.

What a client runs: its recipe (docs/how-to/clients), then its program (`programs/NAME.*`), if there is one. A program
is the client's quick start with nothing changed but address, key and model, and what users of it do next.
"""

from dataclasses import dataclass

from tests.clients import environments


@dataclass(frozen=True, slots=True)
class Client:
    """A client in its default use."""

    name: str
    title: str
    does: str
    # Whose pin in the environment is the client's version; "" if the machine brings the client.
    package: str
    environment: str = ""
    program: str = ""
    # Why its default use does not work: the test then expects that it fails.
    fails: str = ""
    # In each `.ci/run`: quick to install and quick to run.
    is_light: bool = False

    @property
    def pins(self) -> str:
        return self.environment or self.name

    @property
    def version(self) -> str:
        return environments.pinned(self.pins, self.package) if self.package else "the machine's"


# Its test is its own: tests/clients/test_browser.py.
BROWSER = Client(
    "browser", "a page in Chromium", "chat by fetch from another origin", "", is_light=True
)
CLIENTS = (
    Client(
        "openai-python",
        "openai for Python",
        "models, files, chat, stream, completions, tools, JSON, Responses",
        "openai",
        is_light=True,
    ),
    Client(
        "openai-python-2",
        "openai for Python, 2",
        "the same",
        "openai",
        program="openai-python",
    ),
    Client(
        "openai-python-1",
        "openai for Python, 1",
        "the same",
        "openai",
        program="openai-python",
    ),
    Client(
        "openai-cli",
        "openai's command",
        "models, chat, stream, completions, jobs",
        "openai",
        environment="openai-python-1",
    ),
    Client(
        "openai-node",
        "openai for JavaScript",
        "models, files, chat, stream, tools, JSON, Responses",
        "openai",
    ),
    Client(
        "openai-node-6",
        "openai for JavaScript, 6",
        "the same",
        "openai",
        program="openai-node",
    ),
    Client(
        "openai-node-5",
        "openai for JavaScript, 5",
        "the same",
        "openai",
        program="openai-node",
    ),
    Client("curl", "curl", "chat", "", is_light=True),
    Client("java", "the JDK's HttpClient", "chat, with its offer of HTTP/2", "", is_light=True),
    Client(
        "openai-agents",
        "OpenAI's Agents SDK",
        "Responses, stream, tool, output type",
        "openai-agents",
    ),
    Client(
        "langchain",
        "LangChain",
        "chat, stream, batches, tools, structured output",
        "langchain-openai",
    ),
    Client("langchain-js", "LangChain, JavaScript", "the same", "@langchain/openai"),
    Client(
        "llama-index",
        "LlamaIndex",
        "chat, stream, completions, tools, structured",
        "llama-index-llms-openai-like",
    ),
    Client("instructor", "Instructor", "modes TOOLS and JSON_SCHEMA", "instructor"),
    Client(
        "pydantic-ai",
        "Pydantic AI",
        "`openai:` and `openai-chat:`: stream, tool, outputs",
        "pydantic-ai-slim",
    ),
    Client("dspy", "DSPy", "LM, a signature, JSON as its fallback", "dspy"),
    Client(
        "dspy-finetune",
        "DSPy's fine-tuning provider",
        "upload, job, the model asked with `openai/` in front",
        "dspy",
        environment="dspy",
    ),
    Client(
        "litellm",
        "LiteLLM",
        "chat, stream, batches, completions, tools, JSON, Responses",
        "litellm",
    ),
    Client(
        "litellm-proxy",
        "LiteLLM in front",
        "chat, stream, Responses through it",
        "litellm",
        environment="litellm",
    ),
    Client("llm", "llm", "prompt, conversation, tool, schema", "llm"),
    Client("vercel-ai", "Vercel AI SDK, chat", "text, stream, tools, objects", "ai"),
    Client(
        "vercel-ai-openai",
        "Vercel AI SDK, `openai(id)`",
        "Responses: text, stream, tools, objects",
        "@ai-sdk/openai",
        environment="vercel-ai",
    ),
    Client(
        "open-webui",
        "Open WebUI",
        "a chat from its own page, in Chromium",
        "open-webui",
    ),
    Client("promptfoo", "promptfoo", "an evaluation", "promptfoo"),
    Client(
        "lm-eval", "lm-evaluation-harness", "a task with choices: echo with logprobs", "lm-eval"
    ),
    Client("mlflow", "MLflow tracing", "a trace in SQLite", "mlflow"),
    Client("langfuse", "Langfuse tracing", "a trace at a local sink", "langfuse"),
    Client(
        "openllmetry",
        "OpenLLMetry",
        "spans of chat and stream",
        "opentelemetry-instrumentation-openai",
    ),
    Client("shell-gpt", "shell-gpt", "prompt, conversation", "shell-gpt"),
    Client("deepeval", "deepeval", "its local model", "deepeval"),
    Client("haystack", "Haystack", "chat, stream, tools", "haystack-ai"),
    Client(
        "semantic-kernel",
        "Semantic Kernel",
        "an agent, stream, plugin",
        "semantic-kernel",
    ),
    Client("aisuite", "aisuite", "chat, tools", "aisuite"),
    Client("smolagents", "smolagents", "its model: chat, stream, tools", "smolagents"),
    Client(
        "autogen",
        "AutoGen",
        "chat, stream, agent with a tool, output type",
        "autogen-ext",
    ),
    Client("ag2", "AG2", "an agent, a tool", "ag2"),
    Client("agno", "agno", "an agent, stream, a tool, output type", "agno"),
    Client("strands", "Strands", "an agent, a tool", "strands-agents"),
    Client("mirascope", "Mirascope", "call, tool, format", "mirascope"),
    Client("crewai", "CrewAI", "model, agent, tool, output type", "crewai"),
    Client("outlines", "Outlines", "text, stream, schema", "outlines"),
    Client("inspect-ai", "Inspect", "a task, a tool", "inspect-ai"),
    Client("wandb", "W&B's logger of jobs", "waits for a job, logs its metrics, offline", "wandb"),
    Client("gptme", "gptme", "a prompt", "gptme"),
    Client("guidellm", "guidellm", "8 requests of a benchmark, by its HTTP backend", "guidellm"),
)
