"""How moto is extended: a method of one of its classes is replaced by ours, which gets the
original as its first argument."""

import functools
from collections.abc import Callable
from typing import Any


def override(cls: type, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replaces `cls.name`; the function below it is called as `f(original, self, ...)`."""
    original = getattr(cls, name)

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def replacement(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(original, self, *args, **kwargs)

        setattr(cls, name, replacement)
        return function

    return apply
