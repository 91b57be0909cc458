"""The results file: an SQLite database with a row for each run.

A row is ``pending``, ``running``, ``finished``, ``diverged`` or ``failed``. Processes share a file by claiming rows: in
one transaction a pending row becomes a running one with the name of its owner, so that it has one owner at most. A row
whose owner is gone is pending again. A result is written only by the owner of its row.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lrcore._messages import brief
from lrcore.sweeps import lease
from lrcore.sweeps.space import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lrcore.sweeps.objective import Outcome, Run

_APPLICATION = 0x6C72636F  # "lrco", where SQLite has a place for such a mark
_VERSION = 1
# Seconds that SQLite waits for another process that is writing; Ctrl-C is heard after them.
_TRY = 1.0
# Seconds after which a file that is still locked is told of; then after twice as long, and so on.
_PATIENCE = 20.0
_PAUSE = 0.05
# Errors that pass, if somebody else does something about them.
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
_TABLES = """
CREATE TABLE sweep (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    settings TEXT NOT NULL,         -- JSON with sorted names
    budget INTEGER NOT NULL,        -- 0: none
    seed_index INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending',
    objective REAL,
    metrics TEXT NOT NULL DEFAULT '{}',
    reason TEXT NOT NULL DEFAULT '',
    seconds REAL,
    attempts INTEGER NOT NULL DEFAULT 0,  -- how often it was begun
    owner TEXT,
    beat REAL,                      -- the owner's last sign of life
    UNIQUE (settings, budget, seed_index)
);
"""
_COLUMNS = "settings, budget, seed_index, seed, status, objective, metrics, reason, seconds, attempts"
_WANTED = "SELECT id FROM wanted"


class Row(NamedTuple):
    """A run as the file has it."""

    settings: dict[str, Any]
    budget: int | None
    seed_index: int
    seed: int
    status: str
    objective: float | None
    metrics: dict[str, Any]
    reason: str
    seconds: float | None
    attempts: int


class Store:
    """The rows of a results file, and those among them that a sweep wants.

    Args:
        path: The file; None keeps all in memory.
        objective: The name of the function; None takes the file's, which then must be there.

    Raises:
        ValueError: If the file is of another program, of a newer version, or of another function.
        OSError: If it can't be opened.
    """

    def __init__(self, path: str | os.PathLike[str] | None, objective: str | None) -> None:
        self._name = "the results" if path is None else os.fspath(path)
        self._me = lease.current()
        self._runs: dict[int, Run] = {}
        _check_path(path, is_new=objective is not None)
        # In autocommit mode each statement is a transaction, unless one is begun.
        self._database = sqlite3.connect(":memory:" if path is None else self._name, timeout=_TRY, isolation_level=None)
        try:
            self._open(objective)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ValueError(f"{self._name} can't be used as a results file: {error}") from None
        except BaseException:
            self._database.close()
            raise

    def _open(self, objective: str | None) -> None:
        # Who only reads needs no right to write.
        with self._transaction("BEGIN" if objective is None else "BEGIN IMMEDIATE"):
            (application,) = self._execute("PRAGMA application_id").fetchone()
            (version,) = self._execute("PRAGMA user_version").fetchone()
            (tables,) = self._execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables and not application and objective is not None:
                for statement in _TABLES.split(";\n")[:-1]:
                    self._execute(statement)
                self._execute(f"PRAGMA application_id = {_APPLICATION}")
                self._execute(f"PRAGMA user_version = {_VERSION}")
                self._execute("INSERT INTO sweep VALUES ('objective', ?)", (objective,))
            elif application != _APPLICATION:
                raise ValueError(f"{self._name} is an SQLite file of another program, not the results of a sweep")
            elif version != _VERSION:
                raise ValueError(f"{self._name} is of version {version}; known is {_VERSION}")
            elif objective is not None and (known := self["objective"]) != objective:
                raise ValueError(f"{self._name} has runs of {known!r}, not of {objective!r}; choose another file")
        self._execute("CREATE TEMP TABLE wanted (place INTEGER PRIMARY KEY, id INTEGER UNIQUE)")

    def __getitem__(self, name: str) -> str | None:
        """Return what the file says of the sweep as a whole."""
        found = self._execute("SELECT value FROM sweep WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def __setitem__(self, name: str, value: str) -> None:
        self._execute("INSERT OR REPLACE INTO sweep VALUES (?, ?)", (name, value))

    def want(self, runs: Sequence[Run], *, retry: bool) -> None:
        """Add the runs that are not there, and from now on speak of these alone.

        Args:
            runs: The runs, in the order in which they are to begin.
            retry: Whether those that failed are to be run again.
        """
        keys = [(canonical(run.settings), run.budget or 0, run.index) for run in runs]
        rows = [(*key, run.seed) for key, run in zip(keys, runs, strict=True)]
        with self._transaction():
            self._execute_many(
                "INSERT OR IGNORE INTO runs (settings, budget, seed_index, seed) VALUES (?, ?, ?, ?)", rows
            )
            self._execute("DELETE FROM wanted")
            same = "settings = ? AND budget = ? AND seed_index = ?"
            self._execute_many(f"INSERT INTO wanted (id) SELECT id FROM runs WHERE {same}", keys)  # noqa: S608
            if retry:
                failed = f"status = 'failed' AND id IN ({_WANTED})"
                self._execute(f"UPDATE runs SET status = 'pending' WHERE {failed}")  # noqa: S608
        identities = [identity for (identity,) in self._execute(f"{_WANTED} ORDER BY place")]
        self._runs = dict(zip(identities, runs, strict=True))

    def claim(self) -> tuple[int, Run] | None:
        """Make the next wanted run that is pending one's own; None if there is none now."""
        first = "SELECT runs.id FROM wanted JOIN runs USING (id) WHERE status = 'pending' ORDER BY place LIMIT 1"
        with self._transaction():
            found = self._execute(first).fetchone()
            if found is None:
                return None
            self._execute(
                "UPDATE runs SET status = 'running', owner = ?, beat = ?, attempts = attempts + 1, objective = NULL, "
                "metrics = '{}', reason = '', seconds = NULL WHERE id = ?",
                (self._me, time.time(), found[0]),
            )
        return found[0], self._runs[found[0]]

    def finish(self, identity: int, outcome: Outcome) -> bool:
        """Write what became of a run of one's own; return whether it still was, and is now written.

        One that was taken from this owner, since the file was locked for longer than its lease, and that nobody else
        has begun, is written too.
        """
        values = (outcome.status, outcome.objective, json.dumps(outcome.metrics), outcome.reason, outcome.seconds)
        done = self._execute(
            "UPDATE runs SET status = ?, objective = ?, metrics = ?, reason = ?, seconds = ?, owner = NULL, "
            "beat = NULL WHERE id = ? AND (owner = ? AND status = 'running' OR status = 'pending')",
            (*values, identity, self._me),
        )
        return done.rowcount == 1

    def release(self) -> None:
        """Make what is still one's own pending again."""
        if self._database.in_transaction:  # Ctrl-C came between its begin and its statements
            self._execute("ROLLBACK")
        self._free(self._me)

    def heartbeat(self) -> None:
        """Give a sign of life for the runs that are one's own."""
        self._execute("UPDATE runs SET beat = ? WHERE owner = ? AND status = 'running'", (time.time(), self._me))

    def reclaim(self) -> None:
        """Make the runs of owners that are gone pending again."""
        known = "SELECT owner, max(beat) FROM runs WHERE status = 'running' AND owner != ? GROUP BY owner"
        for other, beat in self._execute(known, (self._me,)).fetchall():
            if lease.is_gone(other, beat):
                self._free(other)

    def settled(self) -> int:
        """Return how many of the wanted runs have ended, whoever ran them."""
        ended = f"status NOT IN ('pending', 'running') AND id IN ({_WANTED})"
        (count,) = self._execute(f"SELECT count(*) FROM runs WHERE {ended}").fetchone()  # noqa: S608
        return int(count)

    def rows(self, *, wanted: bool) -> list[Row]:
        """Return the runs, all of them or those that are wanted."""
        source = "wanted JOIN runs USING (id) ORDER BY place" if wanted else "runs ORDER BY id"
        found = self._execute(f"SELECT id, {_COLUMNS} FROM {source}")  # noqa: S608
        return [self._row(*values) for values in found]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _row(self, identity: int, settings: str, budget: int, index: int, seed: int, status: str, *more: Any) -> Row:
        objective, metrics, reason, seconds, attempts = more
        if identity in self._runs:  # which has the names in the order of the space
            values = self._runs[identity].settings
        else:
            values = {name: _tuples(value) for name, value in json.loads(settings).items()}
        read = json.loads(metrics)
        return Row(values, budget or None, index, seed, status, objective, read, reason, seconds, attempts)

    def _free(self, whose: str) -> None:
        self._execute(
            "UPDATE runs SET status = 'pending', owner = NULL, beat = NULL WHERE owner = ? AND status = 'running'",
            (whose,),
        )

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._patiently(self._database.execute, statement, values)

    def _execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._patiently(self._database.executemany, statement, rows)

    def _patiently(self, execute: Callable[..., sqlite3.Cursor], *arguments: Any) -> sqlite3.Cursor:
        """Execute a statement as soon as the file is not locked and the disk not full: results are worth any wait."""
        start, patience = time.monotonic(), _PATIENCE
        while True:
            try:
                return execute(*arguments)
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING:
                    raise
                waited = time.monotonic() - start
                if waited >= patience:
                    patience = 2 * waited
                    _warn_or_print(
                        f"{self._name} can't be used for {waited:.0f} s now: {error}; what has finished is kept, and "
                        "written when that is over (Ctrl-C gives up)"
                    )
            time.sleep(_PAUSE)

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        """All statements or none, and no other process writes between them."""
        self._execute(begin)
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise


def _warn_or_print(message: str) -> None:
    """Warn, also where warnings are made errors: it must not end a sweep whose results wait to be written."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        sys.stderr.write(f"{message}\n")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check_path(path: str | os.PathLike[str] | None, *, is_new: bool) -> None:
    if path is None:
        return
    place = Path(path)
    if not os.fspath(path) or place.is_dir():
        raise ValueError(f"results must be a file, got {brief(os.fspath(path))}")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"results: there is no folder {str(place.parent)!r}")
    if not is_new and not place.exists():
        raise FileNotFoundError(f"there is no results file {str(place)!r}")


def same_settings(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return rows by the canonical text of their settings, in the order in which the first of each stands."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(canonical(row.settings), []).append(row)
    return groups
