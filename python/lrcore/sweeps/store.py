"""The results file: an SQLite database with a row for each run.

A row is ``pending``, ``running``, ``finished``, ``diverged`` or ``failed``. Processes share a file through leases::

    claim:    in one transaction, a pending row becomes running, with its holder and a heartbeat
    finish:   the holder writes the outcome
    reclaim:  running rows whose holder is dead become pending again (see lease.py)
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
    from collections.abc import Iterator, Sequence

    from lrcore.sweeps.objective import Outcome, Run

_APPLICATION = 0x6C72636F  # "lrco", SQLite's application id
_VERSION = 1
# Seconds that SQLite waits for a lock, during which Ctrl-C has no effect.
_TRY = 1.0
# Seconds after which a locked file is reported; then after twice as long, and so on.
_PATIENCE = 20.0
_PAUSE = 0.05
# Errors after which a statement is tried again.
_TEMPORARY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
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
    attempts INTEGER NOT NULL DEFAULT 0,  -- the number of starts
    owner TEXT,                     -- the holder of the lease
    beat REAL,                      -- the holder's last heartbeat
    UNIQUE (settings, budget, seed_index)
);
"""
_SELECTED = "SELECT id FROM selected"


class Row(NamedTuple):
    """A run in the file; the fields are its columns."""

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
    """A results file, and the runs in it that belong to a sweep.

    Args:
        path: The file; None keeps everything in memory.
        objective: The name of the function; None opens an existing file of any function.

    Raises:
        ValueError: If the file belongs to another program, another version or another function.
        OSError: If it can't be opened.
    """

    def __init__(self, path: str | os.PathLike[str] | None, objective: str | None) -> None:
        self._name = "the results" if path is None else os.fspath(path)
        self._holder = lease.current()
        self._runs: dict[int, Run] = {}
        _check_path(path, is_new=objective is not None)
        # Autocommit mode: each statement is a transaction, unless one is started.
        self._database = sqlite3.connect(":memory:" if path is None else self._name, timeout=_TRY, isolation_level=None)
        try:
            self._open(objective)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ValueError(f"results must be a file of a sweep, got {self._name}: {error}") from None
        except BaseException:
            self._database.close()
            raise

    def _open(self, objective: str | None) -> None:
        # Reading needs no write permission.
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
                raise ValueError(
                    f"results must be a file of a sweep, got an SQLite file of another program: {self._name}"
                )
            elif version != _VERSION:
                raise ValueError(f"results: {self._name} must be version {_VERSION}, got {version}")
            elif objective is not None and (known := self["objective"]) != objective:
                raise ValueError(f"results must be a file of {objective!r}, got runs of {known!r}: {self._name}")
        self._execute("CREATE TEMP TABLE selected (place INTEGER PRIMARY KEY, id INTEGER UNIQUE)")

    def __getitem__(self, name: str) -> str | None:
        """Return an attribute of the sweep."""
        found = self._execute("SELECT value FROM sweep WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def __setitem__(self, name: str, value: str) -> None:
        self._execute("INSERT OR REPLACE INTO sweep VALUES (?, ?)", (name, value))

    def select(self, runs: Sequence[Run], *, retry: bool) -> None:
        """Add missing runs, and restrict the other methods to these runs.

        Args:
            runs: The runs, in the order in which they start.
            retry: Whether failed runs become pending.
        """
        keys = [(canonical(run.settings), run.budget or 0, run.index) for run in runs]
        rows = [(*key, run.seed) for key, run in zip(keys, runs, strict=True)]
        with self._transaction():
            insert = "INSERT OR IGNORE INTO runs (settings, budget, seed_index, seed) VALUES (?, ?, ?, ?)"
            self._execute(insert, rows, many=True)
            self._execute("DELETE FROM selected")
            same = "settings = ? AND budget = ? AND seed_index = ?"
            self._execute(f"INSERT INTO selected (id) SELECT id FROM runs WHERE {same}", keys, many=True)  # noqa: S608
            if retry:
                failed = f"status = 'failed' AND id IN ({_SELECTED})"
                self._execute(f"UPDATE runs SET status = 'pending' WHERE {failed}")  # noqa: S608
        identities = [row_id for (row_id,) in self._execute(f"{_SELECTED} ORDER BY place")]
        self._runs = dict(zip(identities, runs, strict=True))

    def claim(self) -> tuple[int, Run] | None:
        """Take the lease of the next pending run and return its id and the run; None if none is pending."""
        first = "SELECT runs.id FROM selected JOIN runs USING (id) WHERE status = 'pending' ORDER BY place LIMIT 1"
        with self._transaction():
            found = self._execute(first).fetchone()
            if found is None:
                return None
            self._execute(
                "UPDATE runs SET status = 'running', owner = ?, beat = ?, attempts = attempts + 1, objective = NULL, "
                "metrics = '{}', reason = '', seconds = NULL WHERE id = ?",
                (self._holder, time.time(), found[0]),
            )
        return found[0], self._runs[found[0]]

    def finish(self, row_id: int, outcome: Outcome) -> bool:
        """Write the outcome of a run that this process holds; return whether it was written.

        If the lease expired, because the file was locked for too long, the outcome is written unless another process
        has started the run.
        """
        values = (outcome.status, outcome.objective, json.dumps(outcome.metrics), outcome.reason, outcome.seconds)
        done = self._execute(
            "UPDATE runs SET status = ?, objective = ?, metrics = ?, reason = ?, seconds = ?, owner = NULL, "
            "beat = NULL WHERE id = ? AND (owner = ? AND status = 'running' OR status = 'pending')",
            (*values, row_id, self._holder),
        )
        return done.rowcount == 1

    def release(self) -> None:
        """Give up all leases of this process."""
        if self._database.in_transaction:  # Ctrl-C between BEGIN and the statements
            self._execute("ROLLBACK")
        self._free(self._holder)

    def heartbeat(self) -> None:
        """Update the heartbeat of this process's leases."""
        self._execute("UPDATE runs SET beat = ? WHERE owner = ? AND status = 'running'", (time.time(), self._holder))

    def reclaim(self) -> None:
        """Make the runs of dead holders pending again."""
        known = "SELECT owner, max(beat) FROM runs WHERE status = 'running' AND owner != ? GROUP BY owner"
        for holder, beat in self._execute(known, (self._holder,)).fetchall():
            if lease.is_gone(holder, beat):
                self._free(holder)

    def count_ended(self) -> int:
        """Return how many runs of the sweep have ended, in any process."""
        ended = f"status NOT IN ('pending', 'running') AND id IN ({_SELECTED})"
        (count,) = self._execute(f"SELECT count(*) FROM runs WHERE {ended}").fetchone()  # noqa: S608
        return int(count)

    def rows(self, *, selected: bool) -> list[Row]:
        """Return the runs of the sweep, or all runs of the file."""
        source = "selected JOIN runs USING (id) ORDER BY place" if selected else "runs ORDER BY id"
        found = self._execute(f"SELECT id, {', '.join(Row._fields)} FROM {source}")  # noqa: S608
        return [self._row(*values) for values in found]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _row(self, row_id: int, *values: Any) -> Row:
        stored: Any = Row(*values)
        run = self._runs.get(row_id)
        # The settings of a run have the order of the space, those in the file are sorted by name.
        settings = run.settings if run else {name: _tuples(x) for name, x in json.loads(stored.settings).items()}
        row: Row = stored._replace(settings=settings, budget=stored.budget or None, metrics=json.loads(stored.metrics))
        return row

    def _free(self, holder: str) -> None:
        self._execute(
            "UPDATE runs SET status = 'pending', owner = NULL, beat = NULL WHERE owner = ? AND status = 'running'",
            (holder,),
        )

    def _execute(self, statement: str, values: Sequence[Any] = (), *, many: bool = False) -> sqlite3.Cursor:
        """Execute a statement; while the file is locked or the disk is full, wait for as long as it takes.

        Args:
            statement: The statement.
            values: Its values.
            many: Whether to execute it with each of several rows of values.
        """
        execute = self._database.executemany if many else self._database.execute
        start, patience = time.monotonic(), _PATIENCE
        while True:
            try:
                return execute(statement, values)
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _TEMPORARY:
                    raise
                waited = time.monotonic() - start
                if waited >= patience:
                    patience = 2 * waited
                    _warn_or_print(
                        f"results: {self._name} could not be written for {waited:.0f} s: {error}; finished runs are "
                        "kept and written later (Ctrl-C gives up)"
                    )
            time.sleep(_PAUSE)

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        """Execute all statements or none, with no other writes between them."""
        self._execute(begin)
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise


def _warn_or_print(message: str) -> None:
    """Warn, but never raise: an error would end a sweep whose results are not written yet."""
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
        raise FileNotFoundError(f"results must be in an existing folder, got {os.fspath(path)!r}")
    if not is_new and not place.exists():
        raise FileNotFoundError(f"path must be an existing results file, got {str(place)!r}")
