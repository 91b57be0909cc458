"""What every campaign is: trials with seeds, until the time is over or one of them fails."""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def main(trial: Callable[[int], int]) -> None:
    """Run trials with successive seeds and print one line of JSON: how many, how many operations, what failed.

    Called as ``python -m soak.<campaign> SECONDS [SEED]``. A trial takes its seed and returns how many operations it
    tried; it raises if something is wrong. A seed repeats its trial.
    """
    seconds, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    end = time.monotonic() + seconds
    trials = operations = 0
    failure = None
    while trials == 0 or time.monotonic() < end:
        # A crash leaves the seed in the log.
        print(f"seed {seed + trials}", file=sys.stderr, flush=True)
        try:
            operations += trial(seed + trials)
        except Exception:
            failure = f"seed {seed + trials}: {traceback.format_exc()}"
        trials += 1
        if failure:
            break
    print(json.dumps({"trials": trials, "operations": operations, "failure": failure}))
    sys.exit(1 if failure else 0)
