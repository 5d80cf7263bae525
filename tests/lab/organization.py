"""Organizations in plain Python: who may do what with their models and files, and what becomes of each (DESIGN, section 8).

Nothing of the product is used here. Time is in whole days.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Person:
    """Whoever has a key. `writes`: may make things in the project without being an Owner."""

    name: str
    organization: str
    project: str
    writes: bool = False


@dataclass
class Thing:
    """A model or a file. `sources` are what it learned from; `job` made it; `is_done`: its deletion was answered."""

    key: int
    organization: str
    project: str
    is_file: bool
    made_on: int
    sources: frozenset[int] = frozenset()
    job: int | None = None
    is_checkpoint: bool = False
    is_archived: bool = False
    is_protected: bool = False
    holds: set[str] = field(default_factory=set)
    used_on: int = -1
    is_gone: bool = False
    is_done: bool = False


@dataclass
class Job:
    """A job, by its number; unfinished until its trainer has ended."""

    key: int
    project: str
    needs: frozenset[int]
    is_cancelled: bool = False
    is_finished: bool = False


@dataclass
class RetentionRule:
    """A rule. `due` has the day of each deletion that is announced."""

    id: str
    organization: str
    older: int | None
    unused: int | None
    keep: int | None
    archives: bool
    notice: int
    is_enabled: bool = True
    ran: int = -1
    due: dict[int, int] = field(default_factory=dict)


@dataclass
class Organizations:
    """Everything that a database knows. A copy of it is a backup."""

    owners: set[str]
    things: dict[int, Thing] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    # By name, each version's targets; those of one organization.
    aliases: dict[str, list[frozenset[int]]] = field(default_factory=dict)
    rules: list[RetentionRule] = field(default_factory=list)
    with_rules: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    clock_is_distrusted: bool = False
    noted_on: int = 0

    # Who sees and may what.

    def is_owner(self, who: Person) -> bool:
        return who.name in self.owners

    def sees(self, who: Person, thing: Thing) -> bool:
        """Tell whether it is there for somebody. What a job keeps on the way belongs to its project alone."""
        if thing.is_gone or thing.organization != who.organization:
            return False
        is_of_project = thing.is_file or thing.is_checkpoint
        return thing.project == who.project or not is_of_project

    def alive(self) -> list[Thing]:
        return [one for one in self.things.values() if not one.is_gone]

    # What goes together, and what blocks it.

    def with_checkpoints(self, thing: Thing) -> list[Thing]:
        """Return a thing after the checkpoints that go with it."""
        if thing.is_file or thing.is_checkpoint or thing.job is None:
            return [thing]
        return [*(one for one in self.alive() if one.job == thing.job and one.is_checkpoint), thing]

    def learned_from(self, file: Thing) -> set[int]:
        """Return the keys of all that learned from a file, what is gone included."""
        found, left = set[int](), [file.key]
        while left:
            key = left.pop()
            new = {one.key for one in self.things.values() if key in one.sources} - found
            found |= new
            left += new
        return found - {file.key}

    def case_of(self, who: Person, file: Thing) -> tuple[list[Thing], int]:
        """Return the living members of a case that begins with a file, and how many are hidden from who asks."""
        reached = [self.things[key] for key in self.learned_from(file)]
        living = [one for one in reached if not one.is_gone]
        members = [one for one in living if self.sees(who, one)]
        members = [part for one in members for part in self.with_checkpoints(one)]
        chosen = {one.key: one for one in [*members, file]}
        return list(chosen.values()), sum(one.key not in chosen for one in living)

    def blockers(self, things: Iterable[Thing], *, with_jobs: bool = True) -> set[str]:
        found = set[str]()
        for one in things:
            found |= {"hold"} if one.holds else set()
            found |= {"protected"} if one.is_protected else set()
            found |= (
                {"alias"} if any(one.key in past[-1] for past in self.aliases.values()) else set()
            )
            found |= {"job"} if with_jobs and self.is_needed(one) else set()
        return found

    def is_needed(self, thing: Thing) -> bool:
        """Tell whether a job that has not ended reads it, starts from it or made it."""
        return any(
            not job.is_finished and (thing.key in job.needs or thing.job == job.key)
            for job in self.jobs.values()
        )

    def deletion(
        self, who: Person, thing: Thing, *, force: bool = False, with_models: bool = False
    ) -> list[Thing] | str:
        """Return what a deletion takes with it, or why it is refused."""
        if not self.sees(who, thing):
            return "not_found"
        if not self.is_owner(who):
            return "forbidden"
        is_case = with_models and thing.is_file
        group = self.case_of(who, thing)[0] if is_case else self.with_checkpoints(thing)
        blocking = self.blockers(group, with_jobs=not is_case)
        if blocking & {"hold"} if force else blocking:
            return "conflict"
        return group

    def delete(self, group: Iterable[Thing]) -> None:
        """Let a group go: jobs that need it are cancelled, and no alias means it any more."""
        for one in group:
            one.is_gone = True
            for job in self.jobs.values():
                job.is_cancelled |= not job.is_finished and one.key in job.needs
                job.is_cancelled |= not job.is_finished and one.job == job.key
            for name, past in [*self.aliases.items()]:
                if one.key in past[-1]:
                    past.append(past[-1] - {one.key})
                    if not past[-1]:
                        del self.aliases[name]
            for rule in self.rules:
                rule.due.pop(one.key, None)

    # Age, use and order.

    def of_rules(self, organization: str) -> list[Thing]:
        """Return the models that rules of an organization are about, newest first."""
        found = [one for one in self.alive() if one.organization == organization]
        return [one for one in reversed(found) if not one.is_file and not one.is_checkpoint]

    def ready_on(self, thing: Thing, older: int | None, unused: int | None) -> int:
        """Return the first day on which it is old enough, and unused for long enough."""
        used = max(one.used_on for one in self.with_checkpoints(thing))
        ages = [thing.made_on + (older or 0), max(used, thing.made_on) + (unused or 0)]
        return ages[0] if unused is None else max(ages)

    def is_latest(self, thing: Thing, keep: int | None) -> bool:
        """Tell whether it is one of the newest with its name, which is its project's."""
        newer = [
            one
            for one in self.of_rules(thing.organization)
            if one.key > thing.key and one.project == thing.project and not one.is_archived
        ]
        return keep is not None and len(newer) < keep

    def verdict(self, rule: RetentionRule, thing: Thing, today: int) -> str:
        """Say what a run of a rule does with a model today."""
        ready = self.ready_on(thing, rule.older, rule.unused)
        is_idle = self.is_latest(thing, rule.keep) or (rule.archives and thing.is_archived)
        if is_idle or ready - rule.notice > today or self.blockers(self.with_checkpoints(thing)):
            return "spare"
        if rule.archives:
            return "archive"
        due = rule.due.get(thing.key)
        if rule.notice and (due is None or ready > max(due, today)):
            return "announce"
        return "delete" if max(due or 0, ready) <= today else "wait"

    def verdicts(self, rule: RetentionRule, today: int) -> dict[int, str]:
        """Say what a run of a rule does with each model today."""
        return {one.key: self.verdict(rule, one, today) for one in self.of_rules(rule.organization)}

    def carry_out(self, rule: RetentionRule, wanted: dict[int, str], today: int) -> Iterator[Thing]:
        """Do what a run does; yield what it deletes."""
        for key, what in wanted.items():
            group = self.with_checkpoints(self.things[key])
            if what == "delete":
                self.delete(group)
                yield from group
            elif what == "archive":
                for one in group:
                    one.is_archived = True
            elif what == "announce":
                ready = self.ready_on(self.things[key], rule.older, rule.unused)
                rule.due[key] = max(ready, today + rule.notice)
            elif what == "spare":
                rule.due.pop(key, None)

    def pause(self) -> None:
        """Let rules only preview, in each organization that ever had one."""
        self.paused |= self.with_rules

    def pause_all(self) -> None:
        """Let rules only preview, in every organization: what it had since the older copy is not known."""
        self.with_rules |= {one.organization for one in self.things.values()}
        self.pause()
