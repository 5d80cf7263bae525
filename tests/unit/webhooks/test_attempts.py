"""One attempt over real sockets, with the resolver that the code uses in the test's hands."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support import authority, webhook_receiver
from tests.support.webhook_receiver import HOST, Receiver

from tunewarden.clock import SystemClock
from tunewarden.settings import networks
from tunewarden.webhooks import attempts as module
from tunewarden.webhooks import urls
from tunewarden.webhooks.addresses import AddressPolicy
from tunewarden.webhooks.attempts import Answer, Attempts
from tunewarden.webhooks.failures import AttemptFailed, Failure, Interrupted

INSIDE = AddressPolicy(tuple(networks("127.0.0.0/8")))
LOOPBACK = AddressPolicy(http_to_loopback=True)


class Rebinding:
    """A name that means other addresses each time it is asked for."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        del host, port
        self.asked += 1
        return self.answers.pop(0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture(scope="module")
def receiver(directory: Path) -> Iterator[Receiver]:
    with webhook_receiver.receiving(directory) as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
            module.tls_context.cache_clear()
            module.tls_context()
        yield running
    module.tls_context.cache_clear()


@pytest.fixture
def plain() -> Iterator[Receiver]:
    with webhook_receiver.receiving() as running:
        yield running


def sent(attempts: Attempts, url: str) -> Answer:
    return attempts.send(urls.parse(url), {"x-test": "1"}, b"{}")


def test_it_goes_to_the_address_that_was_checked_by_the_name_of_the_url(receiver: Receiver) -> None:
    receiver.received.clear()
    resolve = Rebinding([HOST])
    answer = sent(
        Attempts(INSIDE, SystemClock(), resolve=resolve), receiver.url(host="receiver.test")
    )
    assert answer == Answer(200, None)
    assert resolve.asked == 1, "resolved once"
    [got] = receiver.received
    assert got.headers["host"] == f"receiver.test:{receiver.port}"
    assert (got.headers["content-length"], got.headers["connection"]) == ("2", "close")


def test_a_name_that_becomes_private_after_the_check_at_creation_is_refused(
    plain: Receiver,
) -> None:
    """The check and each attempt resolve once; what is refused is never connected to."""
    resolve = Rebinding(["93.184.216.34"], [HOST], ["93.184.216.34", HOST])
    attempts = Attempts(AddressPolicy(), SystemClock(), resolve=resolve)
    url = urls.parse(f"https://rebinding.test:{plain.port}/")
    assert attempts.check(url) == ["93.184.216.34"]
    assert attempts.send(url, {}, b"") == Answer(None, Failure.ADDRESS)
    assert attempts.send(url, {}, b"") == Answer(None, Failure.ADDRESS), "one of two is enough"
    assert plain.received == []


def test_control_without_the_check_it_would_have_arrived(plain: Receiver) -> None:
    attempts = Attempts(LOOPBACK, SystemClock(), resolve=Rebinding([HOST]))
    assert sent(attempts, plain.url(host="rebinding.test")) == Answer(200, None)
    assert len(plain.received) == 1


def test_http_goes_to_loopback_only(plain: Receiver) -> None:
    attempts = Attempts(INSIDE, SystemClock())
    assert sent(attempts, plain.url()) == Answer(None, Failure.ADDRESS)
    public = Attempts(LOOPBACK, SystemClock(), resolve=Rebinding(["93.184.216.34"]))
    assert sent(public, "http://example.com/") == Answer(None, Failure.ADDRESS)


def test_a_certificate_for_another_name_or_of_another_authority_is_refused(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.received.clear()
    attempts = Attempts(INSIDE, SystemClock(), resolve=lambda *_: [HOST])
    assert sent(attempts, receiver.url(host="another.test")) == Answer(None, Failure.TLS)
    with webhook_receiver.receiving(tmp_path) as stranger:
        assert sent(attempts, stranger.url(host="receiver.test")) == Answer(None, Failure.TLS)
        assert stranger.received == []
    assert receiver.received == []
    assert authority.NAMES


def test_a_plain_server_where_tls_is_expected_fails(plain: Receiver) -> None:
    url = f"https://{HOST}:{plain.port}/"
    assert sent(Attempts(INSIDE, SystemClock()), url) == Answer(None, Failure.TLS)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/interim", Answer(204, None)),
        ("/huge", Answer(200, None)),
        ("/redirect", Answer(307, Failure.REDIRECT)),
        ("/garbage", Answer(None, Failure.PROTOCOL)),
        ("/long-line", Answer(None, Failure.PROTOCOL)),
        ("/close", Answer(None, Failure.CLOSED)),
        ("/hang", Answer(None, Failure.TIMEOUT)),
        ("/drip", Answer(None, Failure.TIMEOUT)),
        ("/slow-head", Answer(None, Failure.TIMEOUT)),
        ("/slow-body", Answer(200, None)),
        ("/busy", Answer(503, Failure.STATUS, 7200)),
    ],
)
def test_what_becomes_of_a_receiver_that_answers_in_other_ways(
    plain: Receiver, path: str, expected: Answer
) -> None:
    began = time.monotonic()
    assert sent(Attempts(LOOPBACK, SystemClock(), total_seconds=1.0), plain.url(path)) == expected
    assert time.monotonic() - began < 5
    assert [one.path for one in plain.received] == [path]


def test_a_resolver_that_does_not_answer_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunewarden.webhooks.names.SECONDS", 0.3)
    ended = threading.Event()

    def hang(*_: object) -> list[str]:
        ended.wait(30)
        return []

    attempts = Attempts(LOOPBACK, SystemClock(), resolve=hang)
    try:
        assert sent(attempts, "https://example.com/") == Answer(None, Failure.NAME)
    finally:
        ended.set()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttemptFailed) as refused:
        Attempts(LOOPBACK, SystemClock()).check(urls.parse("https://nothing.invalid/"))
    assert refused.value.failure is Failure.NAME


def test_stopping_ends_what_is_in_flight_at_once(plain: Receiver) -> None:
    attempts = Attempts(LOOPBACK, SystemClock())
    raised: list[type[BaseException]] = []

    def send() -> None:
        try:
            sent(attempts, plain.url("/hang"))
        except BaseException as error:  # noqa: BLE001  what it was is asserted
            raised.append(type(error))

    thread = threading.Thread(target=send)
    thread.start()
    plain.wait_for(1)
    began = time.monotonic()
    attempts.stop()
    thread.join(5)
    assert raised == [Interrupted]
    assert time.monotonic() - began < 1
    with pytest.raises(Interrupted):
        sent(attempts, plain.url())
