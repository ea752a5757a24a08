"""IAM policy evaluation: statements and a request's facts in, allowed or not out. Pure.

moto ignores conditions and never matches an exact resource; a node's rights are all conditions
and exact resources. What is here is what identity policies of roles need: Action, NotAction,
Resource, NotResource, policy variables, and the string, ARN, Bool and Null operators with IfExists
and the set qualifiers. An operator that is not known here never matches.
"""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

Context = Mapping[str, str | list[str]]
VARIABLE = re.compile(r"\$\{([^}]+)\}")


def allows(documents: list[dict[str, Any]], action: str, resource: str, context: Context) -> bool:
    """Whether the policies allow the action: no Deny matches, and some Allow does."""
    facts = {key.lower(): value for key, value in context.items()}
    statements = [s for document in documents for s in _listed(document.get("Statement", []))]
    matching = [s for s in statements if _applies(s, action, resource, facts)]
    if any(statement.get("Effect") == "Deny" for statement in matching):
        return False
    return any(statement.get("Effect") == "Allow" for statement in matching)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _applies(statement: dict[str, Any], action: str, resource: str, facts: Context) -> bool:
    return (
        _matches_action(statement, action)
        and _matches_resource(statement, resource, facts)
        and all(
            _holds(operator, key, _listed(wanted), facts)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _matches_action(statement: dict[str, Any], action: str) -> bool:
    def listed(name: str) -> bool:
        return any(_like(p.lower(), action.lower()) for p in _listed(statement[name]))

    return listed("Action") if "Action" in statement else not listed("NotAction")


def _matches_resource(statement: dict[str, Any], resource: str, facts: Context) -> bool:
    def listed(name: str) -> bool:
        patterns = [_filled(p, facts) for p in _listed(statement[name])]
        return any(p is not None and _like(p, resource) for p in patterns)

    return listed("Resource") if "Resource" in statement else not listed("NotResource")


def _like(pattern: str, value: str) -> bool:
    # `[` is no wildcard in IAM.
    return fnmatchcase(value, pattern.replace("[", "[[]"))


def _filled(pattern: str, facts: Context) -> str | None:
    """The pattern with its variables replaced; None where one has no single value."""
    missing = False

    def replace(match: re.Match[str]) -> str:
        nonlocal missing
        if match[1] in ("*", "?", "$"):
            return match[1]
        value = facts.get(match[1].lower())
        if not isinstance(value, str):
            missing = True
            return ""
        return value

    filled = VARIABLE.sub(replace, pattern)
    return None if missing else filled


def _holds(operator: str, key: str, wanted: list[Any], facts: Context) -> bool:
    """Whether one condition is true of the request."""
    qualifier, _, plain = operator.rpartition(":")
    if_exists = plain.endswith("IfExists")
    plain = plain.removesuffix("IfExists")
    actual = facts.get(key.lower())
    if plain == "Null":
        return (actual is None) == (str(wanted[0]).lower() == "true")
    known = OPERATORS.get(plain)
    if known is None:
        return False
    test, negated = known
    if actual is None or actual == []:
        return if_exists or qualifier == "ForAllValues" or (negated and not qualifier)
    patterns = [_filled(str(pattern), facts) for pattern in wanted]

    def one(value: str) -> bool:
        hit = any(pattern is not None and test(pattern, value) for pattern in patterns)
        return hit != negated

    values = _listed(actual)
    return any(map(one, values)) if qualifier == "ForAnyValue" else all(map(one, values))


def _equal(pattern: str, value: str) -> bool:
    return pattern == value


def _equal_ignoring_case(pattern: str, value: str) -> bool:
    return pattern.lower() == value.lower()


# name -> (test of pattern and value, whether its result is negated)
OPERATORS: dict[str, tuple[Callable[[str, str], bool], bool]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringEqualsIgnoreCase": (_equal_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_equal_ignoring_case, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_like, False),
    "ArnLike": (_like, False),
    "ArnNotEquals": (_like, True),
    "ArnNotLike": (_like, True),
    "Bool": (_equal_ignoring_case, False),
}
