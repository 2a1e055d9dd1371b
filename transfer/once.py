"""A value that many threads want and one of them makes."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Once(Generic[Value]):
    """Made by the first thread that asks; those that ask meanwhile wait for it.

    What making it raises goes to all of these, and is forgotten: the next to ask makes it anew.
    """

    def __init__(self, make: Callable[[], Value]):
        self._make = make
        self._lock = threading.Lock()
        self._future: Future[Value] | None = None

    def get(self, stale: Value | None = None) -> Value:
        """The value, made anew where it still is `stale`, one that no longer serves. Raises what making it raises."""
        with self._lock:
            future = self._future
            known = future is not None and (stale is None or not future.done() or future.result() is not stale)
            if not known:
                self._future = future = Future()
        assert future is not None
        if not known:
            try:
                future.set_result(self._make())
            except BaseException as error:
                self._future = None
                future.set_exception(error)
        return future.result()
