"""Putting things back, whatever goes wrong meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def put_back(restores: list[Callable[[], object]]) -> None:
    """Call each, the last one first, whatever another raises; and again the one in which Ctrl-C was pressed.

    What is done is taken off the list. Afterwards the first error is raised, with what others said as notes; or the
    interrupt, which stops the program.
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
