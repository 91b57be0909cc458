"""The loop of every campaign: trials with successive seeds, until the time is over or a trial fails."""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def main(trial: Callable[[int], int]) -> None:
    """Run trials with successive seeds; print the counts of trials and operations and the failure as one line of JSON.

    Called as ``python -m soak.<campaign> SECONDS [SEED]``. A trial takes a seed and returns its number of
    operations; it raises on a failure. The same seed repeats the same trial.
    """
    seconds, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    end = time.monotonic() + seconds
    trials = operations = 0
    failure = None
    while trials == 0 or time.monotonic() < end:
        # After a crash the seed is in the log.
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
