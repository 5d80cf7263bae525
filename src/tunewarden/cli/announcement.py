"""What `tunewarden serve` prints: its address at once, then how to use it, and five lines at the end."""

import contextlib
import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from tunewarden.app import App
from tunewarden.errors import Error
from tunewarden.identity import keys, sessions
from tunewarden.ids import Prefix, mint
from tunewarden.registry import bases, models
from tunewarden.server import first_start

# Timeout for the state of an engine that is busy loading.
ENGINE_SECONDS = 0.2
SNIPPET = """
from openai import OpenAI
client = OpenAI(base_url="{url}", api_key={key})
chat = client.chat.completions.create(model="{model}", temperature=0, messages=[{{"role": "user", "content": "Hello"}}])
print(chat.choices[0].message.content)
client.models.delete("{model}")
"""


class Announcement:
    """Prints how to use the server: its address at once, and the rest when the models answer."""

    def __init__(self, app: App, root: str, *, is_first: bool) -> None:
        """`root` is the server's address, such as `http://127.0.0.1:8800`."""
        self._app = app
        self._root = root
        self._url = f"{root}/v1"
        self._is_first = is_first
        self._is_begun = False

    def made(self) -> bool:
        """Print what is known so far; return whether that is everything."""
        if not self._is_begun:
            if not self._is_ready():
                return False
            self._is_begun = True
            loading = self._loading()
            self._say(*self._begin(), *([f"Loading {', '.join(loading)} …"] if loading else []))
            if loading:
                return False
        elif self._loading():
            return False
        else:
            self._say("The engine answers.")
        model = models.newest(self._app.database)
        if model is not None:
            self._say(SNIPPET.format(url=self._url, key=self._shown_key(), model=model))
        self._say(*self._end())
        return True

    def _shown_key(self) -> str:
        """Return the Python expression for the Owner key: the key itself on a first start's terminal only."""
        key = first_start.owner_key(self._app)
        if self._is_first and key is not None and sys.stdout.isatty():
            return f'"{key}"'
        return f"open({str(self._app.config.owner_key.resolve())!r}).read().strip()"

    def _is_ready(self) -> bool:
        connection = HTTPConnection(urlsplit(self._root).netloc, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _begin(self) -> list[str]:
        config = self._app.config
        key = first_start.owner_key(self._app)
        lines = [f"Tunewarden answers at {self._url}"]
        # A service's output goes to logs, which others read and nobody erases.
        if self._is_first and key is not None and sys.stdout.isatty():
            lines.append(
                f"Owner key (shown only once; also in {config.owner_key}, mode 0600): {key}"
            )
        elif key is not None:
            lines.append(f"The Owner key is in {config.owner_key}.")
        else:
            lines.append(
                f"{config.owner_key} is not there. If the Owner key is lost, this makes another: tunewarden keys create"
                f" --role owner --name owner --data {config.data}"
            )
        return lines

    def _end(self) -> list[str]:
        """Return the last lines: where it is, what to keep, what to do next, where to read on."""
        return [
            f"API:      {self._url}",
            f"Console:  {self._console()}",
            f"Log key:  {self._log_key()}",
            f"Next:     {self._next_command()}",
            f"Docs:     {self._docs()}",
        ]

    def _console(self) -> str:
        """Return where the console is: on a terminal with a link that signs in once, as the Owner key."""
        key = first_start.owner_key(self._app)
        if key is not None and sys.stdout.isatty():
            with contextlib.suppress(Error):  # the key was revoked, or the disk is full
                caller = keys.authenticate(self._app.database, key, mint(Prefix.REQUEST))
                link = sessions.make_link(self._app.database, caller)
                return f"{self._root}/console/links/{link.secret} (signs in once, for 10 minutes)"
        data = self._app.config.data
        return f"{self._root}/console (sign in with: tunewarden console link --data {data})"

    def _log_key(self) -> str:
        """Return the fingerprint of the key that signs receipts; a log whose key is lost says so itself."""
        with contextlib.suppress(Error):
            _, signer = self._app.open_log()
            return f"sha256:{signer.key.digest()} (keep it: it is in every receipt)"
        return "cannot be read: tunewarden doctor"

    def _next_command(self) -> str:
        data = self._app.config.data
        names = [base.name for base in bases.list_all(self._app.database)]
        if not names:
            return f"no base model yet: tunewarden bases add NAME --path DIR --data {data}"
        if first_start.DEMO_BASE in names:
            return f"tunewarden tour --data {data}"
        return f"tunewarden keys create --role reader --name app --data {data}"

    def _docs(self) -> str:
        page = f"{self._root}/docs"
        if self._app.config.docs_are_open:
            return page
        # A browser sends no key: this address would be an error there.
        return f"docs/index.md of the release; each command's --help; with an API key also {page}"

    def _loading(self) -> list[str]:
        """Return the local bases that the engine has not loaded yet."""
        local = bases.local(self._app.database)
        if not local:
            return []
        try:
            loaded = self._app.engine.bases(within_seconds=ENGINE_SECONDS)
        except (OSError, HTTPException, ValueError, Error):
            loaded = set()  # It is starting, or failing, which the runner logs.
        return [base.name for base in local if base.name not in loaded]

    def _say(self, *lines: str) -> None:
        print("\n".join(lines), flush=True)  # noqa: T201  this is what the command is for
