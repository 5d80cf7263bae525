"""Which models criteria choose, beside what their words say, said again in another way."""

import fnmatch

from hypothesis import given
from hypothesis import strategies as st

from tunewarden.registry.criteria import DAY_MICROS, Candidate, Choice, Criteria, choose

NOW = 20_000 * DAY_MICROS
SPARING = {"too_young", "in_use", "keep_latest"}
names = st.sampled_from(["a", "b"])
few = st.one_of(st.none(), st.integers(1, 3))
micros_ago = st.one_of(
    st.integers(-DAY_MICROS, 5 * DAY_MICROS),
    st.sampled_from([day * DAY_MICROS + more for day in (0, 1, 2, 3) for more in (-1, 0, 1)]),
)
criteria = st.builds(
    Criteria,
    base=st.one_of(st.none(), names),
    suffix=st.sampled_from([None, "", "*", "?", "x*", "x?", "xy"]),
    project_id=st.one_of(st.none(), names),
    older_than_days=few,
    unused_for_days=few,
    keep_latest=few,
)


@st.composite
def models(draw: st.DrawFn) -> list[Candidate]:
    """Newest first, as their numbers are."""
    made = sorted(draw(st.lists(micros_ago, max_size=12)))
    return [
        Candidate(
            n=len(made) - at,
            id=f"m{at}",
            project_id=draw(names),
            base=draw(names),
            suffix=draw(st.sampled_from(["", "x", "xy"])),
            created_at=NOW - ago,
            is_archived=draw(st.booleans()),
            last_used_at=draw(st.one_of(st.none(), micros_ago.map(lambda ago: NOW - ago))),
        )
        for at, ago in enumerate(made)
    ]


def _is_about(wanted: Criteria, one: Candidate) -> bool:
    return (
        wanted.base in (None, one.base)
        and wanted.project_id in (None, one.project_id)
        and (wanted.suffix is None or fnmatch.fnmatchcase(one.suffix, wanted.suffix))
    )


def _is_chosen(wanted: Criteria, one: Candidate, among: list[Candidate]) -> bool:
    """Say by the whole list what `choose` says with a count."""
    age = NOW - one.created_at
    unused = min(age, NOW - one.last_used_at) if one.last_used_at is not None else age
    newer = [
        other
        for other in among
        if other.name == one.name and other.n > one.n and not other.is_archived
    ]
    return (
        age >= 0
        and (wanted.older_than_days is None or age >= wanted.older_than_days * DAY_MICROS)
        and (wanted.unused_for_days is None or unused >= wanted.unused_for_days * DAY_MICROS)
        and (wanted.keep_latest is None or len(newer) >= wanted.keep_latest)
    )


@given(criteria, models())
def test_what_is_chosen_is_what_the_words_say(wanted: Criteria, among: list[Candidate]) -> None:
    found = list(choose(wanted, among, NOW))
    assert [one.candidate for one in found] == [one for one in among if _is_about(wanted, one)]
    for one in found:
        assert one.is_chosen == _is_chosen(wanted, one.candidate, among), one
        _check_reasons(one)


def _check_reasons(one: Choice) -> None:
    codes = {reason.code for reason in one.reasons}
    assert codes, "each row has a reason"
    if one.is_chosen:
        assert not codes & SPARING
    elif one.ready_at <= NOW or one.is_latest:
        assert "keep_latest" in codes
    else:
        assert codes & (SPARING | {"matches"})


@given(criteria.filter(lambda one: one.keep_latest is not None), models())
def test_the_newest_active_ones_of_each_name_stay(wanted: Criteria, among: list[Candidate]) -> None:
    assert wanted.keep_latest is not None
    chosen = {one.candidate for one in choose(wanted, among, NOW) if one.is_chosen}
    for name in {one.name for one in among}:
        active = [one for one in among if one.name == name and not one.is_archived]
        left = [one for one in active if one not in chosen]
        assert left[: wanted.keep_latest] == active[: wanted.keep_latest]


@given(criteria, models(), st.integers(0, 6 * DAY_MICROS))
def test_a_model_is_chosen_when_it_is_ready_and_not_before(
    wanted: Criteria, among: list[Candidate], later: int
) -> None:
    """`ready_at` is right for any later time, as long as nobody uses it."""
    ready = {one.candidate.n: one.ready_at for one in choose(wanted, among, NOW)}
    for one in choose(wanted, among, NOW + later):
        assert one.is_chosen == (ready[one.candidate.n] <= NOW + later and not one.is_latest)


@given(criteria, models())
def test_choosing_again_after_the_chosen_are_gone_chooses_nothing(
    wanted: Criteria, among: list[Candidate]
) -> None:
    """What keeps the latest never eats its way through them."""
    chosen = {one.candidate for one in choose(wanted, among, NOW) if one.is_chosen}
    left = [one for one in among if one not in chosen]
    assert not [one for one in choose(wanted, left, NOW) if one.is_chosen]
