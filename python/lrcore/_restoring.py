"""Running clean-up functions to the end in spite of errors and Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def put_back(restores: list[Callable[[], object]]) -> None:
    """Call functions, the last one first, in spite of errors; a function that Ctrl-C interrupts is called again.

    Completed functions are removed from the list. Afterwards the first error is raised, with the others as notes, or
    the interrupt if there was one.
    """
    error: BaseException | None = None
    interrupt: KeyboardInterrupt | None = None
    while restores:
        try:
            while restores:
                restores[-1]()
                restores.pop()
        except KeyboardInterrupt as pressed:
            interrupt = pressed
        except BaseException as failed:
            restores.pop()
            if error is None:
                error = failed
            else:
                error.add_note(f"and: {failed}")
    if interrupt is not None:
        if error is not None:
            interrupt.add_note(f"and: {error}")
        raise interrupt
    if error is not None:
        raise error
