"""The rules for files' names and beginnings."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.api.downloads import disposition
from tunewarden.errors import Error
from tunewarden.registry.file_rules import HEAD_BYTES, check_beginning, check_name
from tunewarden.registry.files import manifest

VALUES = st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)


def _allows(filename: str, purpose: str = "user_data") -> bool:
    try:
        check_name(filename, purpose)
    except Error:
        return False
    return True


@given(st.text(max_size=300))
def test_a_name_that_is_allowed_has_no_path_and_no_control_in_it(name: str) -> None:
    if _allows(name):
        assert 1 <= len(name) <= 255
        assert not set(name) & set("/\\\0\r\n\x1b\u202e\u2028")
        assert name not in {".", ".."}
        header = disposition(name)
        assert header.isascii()
        assert header.decode().isprintable()
        assert header.count(b'"') == 2
        assert header.count(b";") == 2


@given(st.from_regex(r"[\w .()+,'-]{1,60}", fullmatch=True))
def test_ordinary_names_are_allowed(name: str) -> None:
    assert _allows(name) == (name not in {".", ".."})


@given(st.lists(OBJECTS, min_size=1), st.sampled_from(["\n", "\r\n", "\n\n"]), st.data())
def test_json_lines_are_let_through(objects: list[object], end: str, data: st.DataObject) -> None:
    ends = data.draw(st.booleans())
    text = end.join(json.dumps(one) for one in objects) + (end if ends else "")
    check_beginning("fine-tune", text.encode(), is_whole=True)
    check_beginning("fine-tune", b"\xef\xbb\xbf" + text.encode(), is_whole=True)
    cut = data.draw(st.integers(0, len(text)))
    check_beginning("fine-tune", text.encode()[:cut], is_whole=False)


@pytest.mark.parametrize(
    "beginning", [b"[1]\n", b"{} {}\n", b"x\n", b"\xff\n", b'{"a":1\n', b"", b" \n"]
)
def test_anything_else_is_not_training_data(beginning: bytes) -> None:
    with pytest.raises(Error):
        check_beginning("fine-tune", beginning, is_whole=True)
    check_beginning("user_data", beginning, is_whole=True)


def test_the_line_that_is_wrong_is_named() -> None:
    with pytest.raises(Error, match="Line 3 is not"):
        check_beginning("fine-tune", b"{}\n\n[]\n", is_whole=True)


def test_a_first_line_beyond_the_first_look_is_left_to_the_job() -> None:
    check_beginning("fine-tune", b'{"a":"' + b"x" * HEAD_BYTES, is_whole=False)
    with pytest.raises(Error):
        check_beginning("fine-tune", b"x" * HEAD_BYTES, is_whole=False)


def test_a_manifest_says_nothing_that_a_guess_of_the_content_could_be_compared_with() -> None:
    assert json.loads(manifest("batch", 5, ["ab", "cd"])) == {
        "blobs_sha256": ["ab", "cd"],
        "bytes": 5,
        "purpose": "batch",
    }
