"""The console's `log.js`: the browser keeps the last checkpoint and checks at each visit that the log only grew (R29).

Real logs of hundreds of entries, whose tiles it reads; here in Node's WebCrypto.
"""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.console.test_receipt_module import MODULE
from tests.support.receipts import hand_over

from tunewarden.transparency.directory_log import DirectoryLog
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.tiles import TileName, width_at
from tunewarden_receipts import receipt
from tunewarden_receipts.key_chain import KeyChain

NODE = shutil.which("node")
HARNESS = Path(__file__).with_name("witness_logs.mjs")
SIGNER = LogSigner("log.example/1", bytes(range(32)))
# Around the width of a tile, and in its middle.
SIZES = (0, 1, 2, 3, 7, 8, 200, 255, 256, 257, 300, 512, 513, 700)
Visit = dict[str, Any]
NONE = KeyChain(SIGNER.key).document()
ANOTHER_KEY = "The log has another key than the one that this browser saw, and none leads to it."

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not here: 8 tests of log.js")


def grown(directory: Path, sizes: tuple[int, ...], *, name: str = "entry") -> list[Visit]:
    """What a log serves at each of these sizes."""
    log = DirectoryLog.create(directory, SIGNER)
    visits = []
    for size in sizes:
        since = log.size()
        log.append_all([f"{name} {n}".encode() for n in range(since, size)], since=since)
        visits.append(served(log.checkpoint(), tiles_of(log)))
    return visits


def served(
    note: bytes, tiles: dict[str, bytes], signer: LogSigner = SIGNER, hand_overs: bytes = NONE
) -> Visit:
    return {
        "note": note.decode(),
        "key": signer.public_pem().decode(),
        "handOvers": base64.b64encode(hand_overs).decode(),
        "tiles": {path: base64.b64encode(data).decode() for path, data in tiles.items()},
    }


def tiles_of(log: DirectoryLog) -> dict[str, bytes]:
    """What a log serves of itself, by the names below /log/tile/."""
    names = [
        TileName(level, index, width)
        for level in (0, 1)
        for index in range(3)
        if (width := width_at(level, index, log.size()))
    ]
    return {name.path().removeprefix("tile/"): log.tile(name.path()) or b"" for name in names}


def visited(*browsers: list[Visit]) -> list[list[tuple[str, str | None]]]:
    """What each browser finds at its visits, one after the other."""
    assert NODE is not None
    lines = "".join(json.dumps(visits) + "\n" for visits in browsers)
    done = subprocess.run(
        [NODE, HARNESS, MODULE.with_name("log.js")],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["far"] for one in answers} == {
        TileName(0, 1_234_067).path().removeprefix("tile/"),
    }
    return [[(found, reason) for found, reason in one["found"]] for one in answers]


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Visit]:
    visits = grown(tmp_path_factory.mktemp("grown") / "log", SIZES)
    return dict(zip(SIZES, visits, strict=True))


def test_a_log_that_only_grew_is_consistent_between_any_two_sizes(sizes: dict[int, Visit]) -> None:
    pairs = [(old, new) for old in SIZES for new in SIZES if old <= new]
    found = visited(*([sizes[old], sizes[new]] for old, new in pairs))
    for (old, new), visits in zip(pairs, found, strict=True):
        expected = "same" if old == new else "appended"
        assert visits == [("first", None), (expected, None)], (old, new)


def test_another_history_is_named_again_at_every_visit(
    sizes: dict[int, Visit], tmp_path: Path
) -> None:
    """The key signed both: only who kept the older checkpoint can tell."""
    other = dict(zip(SIZES, grown(tmp_path / "log", SIZES, name="another"), strict=True))
    pairs = [(old, new) for old in (1, 7, 256, 300) for new in SIZES if old <= new]
    found = visited(*([sizes[old], other[new], other[new]] for old, new in pairs))
    broken = ("broken", "The log was not only appended to since this browser saw it.")
    assert found == [[("first", None), broken, broken]] * len(pairs)


def test_what_was_kept_and_cannot_be_read_is_said_and_stays_until_a_person_forgets_it(
    sizes: dict[int, Visit],
) -> None:
    kept = json.dumps({"note": "nothing", "key": SIGNER.public_pem().decode()})
    [found] = visited([sizes[3] | {"kept": kept}, sizes[7]])
    unreadable = "What this browser kept of the log cannot be read: not a signed note."
    assert found == [("unreadable", unreadable)] * 2


def test_a_shorter_log_is_broken_and_the_longer_one_stays_kept(sizes: dict[int, Visit]) -> None:
    [found] = visited([sizes[300], sizes[255], sizes[512]])
    assert found == [
        ("first", None),
        ("broken", "The log is shorter than this browser saw it."),
        ("appended", None),
    ]


def test_another_key_or_name_is_broken(sizes: dict[int, Visit], tmp_path: Path) -> None:
    stranger, renamed = (
        LogSigner(SIGNER.name, bytes(32)),
        LogSigner("log.other/1", bytes(range(32))),
    )
    theirs = DirectoryLog.create(tmp_path / "theirs", stranger)
    elsewhere = DirectoryLog.create(tmp_path / "elsewhere", renamed)
    found = visited(
        [sizes[3], served(theirs.checkpoint(), {}, stranger)],
        [sizes[3], served(theirs.checkpoint(), {})],
        [sizes[0], served(elsewhere.checkpoint(), {}, renamed)],
    )
    assert [one[1] for one in found] == [
        ("broken", ANOTHER_KEY),
        ("broken", "The log's checkpoint cannot be trusted: the log's signature does not verify."),
        ("broken", "The log has another name than this browser saw."),
    ]


def test_a_checkpoint_that_does_not_verify_is_not_kept(sizes: dict[int, Visit]) -> None:
    forged = {**sizes[3], "note": sizes[3]["note"].replace("\n3\n", "\n2\n")}
    [found] = visited([forged, sizes[3]])
    assert found[0][0] == "broken"
    assert found[1] == ("first", None)


def test_nothing_is_known_without_the_tiles_and_wrong_ones_are_broken(
    sizes: dict[int, Visit],
) -> None:
    missing = {**sizes[300], "tiles": {}}
    wrong = {path: base64.b64encode(bytes(32 * 256)).decode() for path in sizes[300]["tiles"]}
    short = dict.fromkeys(sizes[300]["tiles"], "")
    found = visited(
        [sizes[7], missing, sizes[300]],
        [sizes[7], {**sizes[300], "tiles": wrong}],
        [sizes[7], {**sizes[300], "tiles": short}],
    )
    assert [visits[1][0] for visits in found] == ["unknown", "broken", "unknown"]
    assert found[0][2] == ("appended", None), "what was kept is kept until something is known"


def test_a_key_that_took_over_is_believed_if_the_former_one_named_it(tmp_path: Path) -> None:
    old = DirectoryLog.create(tmp_path / "log", SIGNER)
    old.append_all([b"one", b"two", b"three"], since=0)
    before = served(old.checkpoint(), tiles_of(old))
    heir = LogSigner(SIGNER.name, bytes([9] * 32))
    handed = receipt.sign(receipt.build(hand_over(SIGNER, heir)), SIGNER)
    note = old.hand_over(handed, heir)
    stored = receipt.bundle(handed, 3, old.inclusion_proof(3, 4), note, None)
    chain = KeyChain(SIGNER.key).extended(stored)
    new = DirectoryLog(tmp_path / "log", LogSigner(SIGNER.name, bytes([9] * 32), chain=chain))
    at_hand_over = served(note, tiles_of(new), heir, chain.document())
    new.append_all([b"five"], since=4)
    after = served(new.checkpoint(), tiles_of(new), heir, chain.document())
    unproven = {**after, "handOvers": before["handOvers"]}
    # Who still has the former key goes on with it, in a log of its own.
    thief = DirectoryLog.create(tmp_path / "thief", SIGNER)
    thief.append_all([b"one", b"two", b"three", handed, b"other"], since=0)
    stolen = served(thief.checkpoint(), tiles_of(thief))
    first, same, grew, broken = ("first", None), ("same", None), ("appended", None), "broken"
    assert visited(
        [before, at_hand_over, after, after],
        [before, after],
        [before, unproven, after],
        [after, stolen, after],
        [at_hand_over, {**stolen, "key": after["key"], "handOvers": after["handOvers"]}],
    ) == [
        [first, grew, grew, same],
        [first, grew],
        [first, (broken, ANOTHER_KEY), grew],
        [first, (broken, ANOTHER_KEY), same],
        [
            first,
            (
                broken,
                "The log's checkpoint cannot be trusted: the log's signature does not verify.",
            ),
        ],
    ]
