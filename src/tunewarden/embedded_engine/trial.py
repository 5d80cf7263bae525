"""`python -m tunewarden.embedded_engine.trial FD PARENT`: tries constraints before the engine compiles them.

A grammar of a few lines can overflow the library's stack, or keep it busy for minutes; neither can be stopped in a
thread. So a constraint is compiled here first, and followed a few tokens far. None is kept.

Frames in both directions: a length of 4 bytes, then that many bytes, of msgpack. In: a vocabulary, then constraints.
Out: the result of each.
"""

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import llguidance
import msgspec

from tunewarden import config, processes
from tunewarden.embedded_engine.finite_schemas import ENDLESS, has_finite_value

# Of the constraint's trial, in time of the processor: however busy the machine is.
TRIAL_SECONDS = 0.5
MASK_SECONDS = 0.05
# The parent's patience with a machine that gives the trial no time.
PATIENCE_SECONDS = 30.0
# More than a trial takes, so that what is nested too deeply is found here: the engine's threads have 8 MiB.
STACK_BYTES = 4 * 1024 * 1024
MEMORY_BYTES = 512 * 1024 * 1024
STEPS = 24
# As long as each step takes so long, a constraint is followed this far: what is ambiguous takes longer and longer.
DEAR_SECONDS = 0.00015
DEAR_STEPS = 512
# A prime: each step goes another way.
STRIDE = 7919
# Below the engine's threads, which everybody's tokens wait for.
NICENESS = 10
TOO_COMPLEX = "it is too complex"
NO_TEXT = "no text fits it"
# The library says so if no token of the vocabulary continues a text that is not complete.
STUCK_BY = "NoExtensionBias"
HEAD = struct.Struct("<I")
# They bound one mask's time, and a grammar's memory: far below the library's own, which take 20 ms and 500 MB.
LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)


class Vocabulary(msgspec.Struct, frozen=True, array_like=True):
    """A tokenizer as JSON, the number of the model's tokens, and those that end a text."""

    tokenizer: str
    tokens: int
    ends: Sequence[int]

    def load(self) -> llguidance.LLTokenizer:
        """Return the library's form. Raises ValueError."""
        ends = list(self.ends) or None
        return llguidance.LLTokenizer(self.tokenizer, n_vocab=self.tokens, eos_token=ends)


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A constraint to try."""

    grammar: str
    may_be_gbnf: bool


class Tried(msgspec.Struct, frozen=True, array_like=True):
    """The grammar in the library's own form, or why it is refused."""

    grammar: str
    reason: str = ""


class Trial:
    """The child process of one vocabulary, started when it is needed. Not thread-safe."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def run(self, asked: Asked) -> Tried:
        """Try a constraint; a process that it ends is replaced at the next one."""
        try:
            ours = self._socket or self._start()
            _send(ours, asked)
            return msgspec.msgpack.decode(_receive(ours), type=Tried)
        except OSError:
            self.stop()
            return Tried("", TOO_COMPLEX)

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._process = None

    def _start(self) -> socket.socket:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(PATIENCE_SECONDS)
        with theirs:
            number = str(theirs.fileno())
            command = [sys.executable, "-m", __name__, number, str(os.getpid())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=config.child_environment()
            )
        _send(self._socket, self._vocabulary)
        return self._socket


def try_out(tokenizer: llguidance.LLTokenizer, ends: Collection[int], asked: Asked) -> Tried:
    """Compile a constraint and follow it a few tokens far, past the ends that it could have."""
    grammar = asked.grammar
    if asked.may_be_gbnf:
        try:
            grammar = llguidance.grammar_from("grammar", grammar)
        except ValueError as error:
            return Tried("", str(error))
    elif not has_finite_value(_schema_of(grammar)):
        return Tried("", ENDLESS)
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    others = ~sum(1 << end for end in ends)
    for step in range(DEAR_STEPS):
        begun = time.thread_time()
        mask = matcher.compute_bitmask()
        took = time.thread_time() - begun
        if matcher.is_error():
            reason = matcher.get_error()
            return Tried("", NO_TEXT if STUCK_BY in reason else reason)
        if took > MASK_SECONDS:
            return Tried("", TOO_COMPLEX)
        allowed = int.from_bytes(mask, "little") & others
        if matcher.is_stopped() or not allowed:
            break
        token = set_bit(allowed, step * STRIDE % allowed.bit_count())
        begun = time.thread_time()
        matcher.consume_token(token)
        took += time.thread_time() - begun
        if step >= STEPS and took < DEAR_SECONDS:
            break
    return Tried(grammar)


def set_bit(bits: int, number: int) -> int:
    """Return the place of the set bit that so many come before.

    Halves are counted as whole numbers: a list of the tokens of a real vocabulary takes longer than the trial may.
    """
    place, width = 0, bits.bit_length()
    while width > 1:
        half = width // 2
        low = bits & (1 << half) - 1
        below = low.bit_count()
        if number < below:
            bits, width = low, half
        else:
            bits, width = bits >> half, width - half
            place, number = place + half, number - below
    return place


def _schema_of(grammar: str) -> Any:
    """Return the schema of a grammar in the library's form; None if it has none."""
    first, *_ = msgspec.json.decode(grammar)["grammars"]
    return first.get("json_schema")


def main() -> None:
    """Answer on the socket that the first argument names until it is closed."""
    descriptor, parent = map(int, sys.argv[1:])
    processes.die_with(parent)
    processes.keep_secrets_in_memory()
    os.nice(NICENESS)
    threading.stack_size(STACK_BYTES)
    with socket.socket(fileno=descriptor) as ours:
        worker = threading.Thread(target=_serve, args=[ours])
        worker.start()
        worker.join()


def _serve(ours: socket.socket) -> None:
    vocabulary = msgspec.msgpack.decode(_receive(ours), type=Vocabulary)
    tokenizer, ends = vocabulary.load(), frozenset(vocabulary.ends)
    _bound_memory()
    while True:
        try:
            asked = msgspec.msgpack.decode(_receive(ours), type=Asked)
        except OSError:
            return
        # The signal's default ends the process, whatever it does.
        signal.setitimer(signal.ITIMER_PROF, TRIAL_SECONDS)
        tried = try_out(tokenizer, ends, asked)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(ours, tried)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _send(to: socket.socket, message: msgspec.Struct) -> None:
    body = msgspec.msgpack.encode(message)
    to.sendall(HEAD.pack(len(body)) + body)


def _receive(whence: socket.socket) -> bytes:
    (length,) = HEAD.unpack(_exactly(whence, HEAD.size))
    return _exactly(whence, length)


def _exactly(whence: socket.socket, length: int) -> bytes:
    body = bytearray()
    while len(body) < length:
        part = whence.recv(min(length - len(body), 1 << 20))
        if not part:
            raise OSError("the other side has ended")
        body += part
    return bytes(body)


if __name__ == "__main__":
    main()
