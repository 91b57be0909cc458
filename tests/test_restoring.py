"""Everything is restored, whatever one restore raises and whenever Ctrl-C is pressed."""

import pytest

from lrcore._restoring import put_back


def failing(*errors, then=lambda: None):
    """A restore that raises these errors, one per call, and then succeeds."""
    left = list(errors)

    def restore():
        if left:
            raise left.pop(0)
        then()

    return restore


def test_an_error_of_one_restore_does_not_prevent_the_others():
    done = []
    restores = [lambda: done.append(1), failing(ValueError("no")), lambda: done.append(2), failing(OSError("first"))]
    with pytest.raises(OSError, match="first") as caught:
        put_back(restores)
    assert done == [2, 1]
    assert caught.value.__notes__ == ["and: no"]


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupt_is_raised_after_everything_is_restored(times):
    done = []
    interrupted = failing(*[KeyboardInterrupt() for _ in range(times)], then=lambda: done.append("interrupted"))
    with pytest.raises(KeyboardInterrupt):
        put_back([lambda: done.append("last"), interrupted, lambda: done.append("first")])
    assert done == ["first", "interrupted", "last"]


def test_an_interrupted_restore_is_repeated_although_another_one_fails_after_it():
    done = []
    interrupted = failing(KeyboardInterrupt(), then=lambda: done.append("interrupted"))
    with pytest.raises(KeyboardInterrupt) as caught:
        put_back([failing(ValueError("no")), interrupted])
    assert done == ["interrupted"]
    assert caught.value.__notes__ == ["and: no"]
