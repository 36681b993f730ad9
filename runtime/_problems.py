"""What is wrong with a manifest: a place in it, and words that name the remedy."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from heapq import nlargest
from itertools import islice
from typing import NamedTuple, Self

#: The way to a value: keys, and indices of lists.
Location = tuple[str | int, ...]

# Looking for a near name takes as long as the list is; nobody reads so many hints.
_MOST_NAMES = 1_000
_MOST_CHARACTERS = 20_000  # in all of these names
_MOST_PROBLEMS_WITH_HINTS = 100
_LONGEST_NAME = 60  # what is longer is compared by its beginning
_NEAR = 0.6
# Who has the same letters is not always near, but to be sure takes a hundred times as long.
_MOST_LOOKED_AT_CLOSELY = 3


class Named(str):
    """The step of a location to an entry of a list: its name, which knows its *place* as well."""

    __slots__ = ("place",)
    place: int

    def __new__(cls, name: str, place: int) -> Self:
        """Return *name* as such a step."""
        step = super().__new__(cls, name)
        step.place = place
        return step


class Problem(NamedTuple):
    """What is wrong at one place of a manifest; *location* is its key path.

    Where it goes through a list, a step is the entry's index, or its name.
    """

    location: Location
    message: str


class ProblemsError(ValueError):
    """What is wrong with the processes of a manifest, all of it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(f"{'.'.join(map(str, where))}: {what}" for where, what in self.problems)


def raise_any(problems: list[Problem]) -> None:
    """Raise a `ProblemsError` with *problems*, if there are any."""
    if problems:
        raise ProblemsError(problems)


def did_you_mean(name: str, known: Iterable[str], *, told: Sequence[object] = ()) -> str:
    """Return ``; did you mean 'NAME'?`` for the known name nearest to *name*, else nothing.

    *told* are the problems found before: the hundredth hint helps nobody, and they take time.
    """
    if len(told) > _MOST_PROBLEMS_WITH_HINTS:
        return ""  # nor need those be listed that it would be found among
    names = list(islice(known, _MOST_NAMES + 1))
    if len(names) > _MOST_NAMES or sum(map(len, names)) > _MOST_CHARACTERS:
        return ""
    near = _nearest(name[:_LONGEST_NAME], {each[:_LONGEST_NAME]: each for each in names})
    return f"; did you mean {near!r}?" if near is not None else ""


def _nearest(name: str, names: Mapping[str, str]) -> str | None:
    """Return the value whose key is nearest to *name*, as `get_close_matches` would find it."""
    matcher = SequenceMatcher(b=name)
    hopeful: list[tuple[float, str]] = []
    for each in names:
        matcher.set_seq1(each)
        if matcher.real_quick_ratio() >= _NEAR and (most := matcher.quick_ratio()) >= _NEAR:
            hopeful.append((most, each))
    close = [each for _, each in nlargest(_MOST_LOOKED_AT_CLOSELY, hopeful)]
    found = get_close_matches(name, close, n=1, cutoff=_NEAR)
    return names[found[0]] if found else None
