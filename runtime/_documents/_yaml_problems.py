"""Says what libyaml has found wrong with a text in words that name the remedy."""

import re

import yaml

from ._document import TOO_DEEP

# What libyaml refuses wherever it stands.
_UNPRINTABLE = re.compile(
    r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_NO_SPACE = re.compile(r"\s*(?:- )*[\w.-]+:[^\s:/]")
_INDENTATION = "; check the indentation"
_OPEN_UNTIL = {
    "while scanning a quoted scalar": "the quote that begins here is never closed",
    "while parsing a flow sequence": "the [ that stands here is never closed",
    "while parsing a flow mapping": "the { that stands here is never closed",
}
_REMEDIES = (
    ("mapping values are not allowed", f"{_INDENTATION}, or put text with a colon in quotes"),
    ("did not find expected key", _INDENTATION),
    ("did not find expected '-' indicator", _INDENTATION),
    ("unknown escape character", "; inside of single quotes a backslash is a backslash"),
)


def explain(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """Return the line of *error*, 0 where it has none, and what is wrong there."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return _explain_character(error, text)
    mark, context = error.problem_mark, error.context_mark
    if mark is None:
        return (context.line + 1 if context else 0), " ".join(str(error).split())
    if context is not None and not text[mark.index :].strip("\0\r\n\t "):
        # Where the text ends nobody finds a mistake; it is where something has begun.
        for words, problem in _OPEN_UNTIL.items():
            if error.context == words:
                return context.line + 1, problem
        if error.context == "while parsing a flow node":
            return mark.line + 1, "a [ or { is not closed where the text ends"
    if context is not None and error.context == "while scanning a simple key":
        mark = context
    if error.problem == "exceeded maximum nesting depth":
        return mark.line + 1, TOO_DEEP
    problem = " ".join(filter(None, (error.context, error.problem)))
    return mark.line + 1, problem + _remedy(problem, mark.index, text)


def _remedy(problem: str, index: int, text: str) -> str:
    start = text.rfind("\n", 0, index) + 1
    line = text[start : start + 200].partition("\n")[0]
    character = text[index : index + 1]
    if "cannot start any token" in problem:
        if character == "\t":
            return "; a tab cannot indent, use spaces"
        return f"; put text that begins with {character} in quotes"
    if "{{" in line:
        return "; put what has {{ in it in quotes"
    if "could not find expected ':'" in problem and _NO_SPACE.match(line):
        return "; put a space after the colon"
    return next((remedy for words, remedy in _REMEDIES if words in problem), "")


def _explain_character(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    found = _UNPRINTABLE.search(text)
    if found is None:
        return 0, " ".join(str(error).split())
    line = text.count("\n", 0, found.start()) + 1
    return line, f"has the character U+{ord(found[0]):04X} in it, which is no text"
