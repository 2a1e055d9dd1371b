"""Scores that are known already, by what they are made of: one sqlite file in the user's cache folder.

A key is a hash over the checkpoints' identities, the mix, the scorer's items and settings, the kind of device, and the
versions of what computes. So a sweep that was stopped or killed goes on where it was, and a point that was scored
before, on any path, is there at once. No pickle: numbers as float64 bytes, words as JSON.
"""

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch
import transformers

from transfer.plane import ROLES, Mix
from transfer.triple import Triple

from .scores import Score, Scorer

MOST = 500_000_000  # bytes of scores; beyond, those longest unused go
ARITHMETIC = 2  # to be raised whenever points or scores are computed otherwise than before
FLUSHED = 200  # scores between two looks at the size

LAYOUT = 1  # of the tables; those of another layout make way
TABLES = """
CREATE TABLE IF NOT EXISTS scores (
    key TEXT PRIMARY KEY, used REAL, name TEXT, value REAL, stderr REAL, n INTEGER, parts BLOB, weights BLOB, said BLOB,
    seconds REAL);
CREATE TABLE IF NOT EXISTS curves (id TEXT, owner TEXT, made REAL, document TEXT, PRIMARY KEY (id, owner));
"""

log = logging.getLogger("transferscope")


def cache_folder() -> Path:
    """Where what can be made again is kept: TRANSFERSCOPE_CACHE, or the platform's folder for caches."""
    return Path(os.environ.get("TRANSFERSCOPE_CACHE") or platformdirs.user_cache_path("transferscope"))


def score_key(triple: Triple, mix: Mix, scorer: Scorer) -> str:
    """The name under which the score of a point is kept: 32 hex digits.

    All three of the plane count at every point: the target base says the dtype and the config, the source fine-tuned model
    the vocabulary and the words, and the source base which tensors are merged at all.
    """
    roles = sorted({*mix.roles, *ROLES[:3]})
    made_of = {
        "checkpoints": {role: triple.checkpoints[role].identity for role in roles},
        "mix": repr(mix),
        "scorer": [scorer.name, scorer.digest],
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "versions": [ARITHMETIC, torch.__version__, transformers.__version__],
    }
    return hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Curve:
    """Scores along a path that were looked at, to be laid beside others: `keys` name a score for each step `at`. `triple` and
    `scorer` are the identity and the digest of what they are of."""

    triple: str
    scorer: str
    title: str
    path: str
    axis: str
    score: str
    at: tuple[float, ...]
    keys: tuple[str, ...]

    @property
    def id(self) -> str:
        return hashlib.blake2b(
            repr((self.triple, self.scorer, self.path, self.score)).encode(), digest_size=8
        ).hexdigest()


class Results:
    """Scores by key, and curves by owner. Safe to share between threads and processes.

    Where the file cannot be opened or is broken, results are kept in memory, or a new file is begun: what was known can
    be made again, so nothing here ever ends a sweep.
    """

    def __init__(self, path: Path | None = None, most: int = MOST, patience: float = 10):
        """`patience` are the seconds to wait for another process that holds the file."""
        self.path = path or cache_folder() / "results.sqlite"
        self.most, self.patience = most, patience
        self._lock = threading.Lock()
        self._put = 0
        self._told: set[str] = set()
        self._base = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return connect(str(self.path), self.patience)
            except sqlite3.OperationalError:  # locked or read-only, and no fault of the file
                raise
            except sqlite3.DatabaseError:
                aside = f".broken-{time.time_ns()}"
                for end in ("", "-wal", "-shm"):
                    part = self.path.with_name(self.path.name + end)
                    if part.exists():
                        part.replace(part.with_name(part.name + aside))
                log.warning("%s is broken and was set aside (%s); a new one is begun.", self.path, aside)
                return connect(str(self.path), self.patience)
        except (OSError, sqlite3.Error) as error:
            log.warning("Results are kept in memory only: %s cannot be written (%s).", self.path, error)
            return connect(":memory:", self.patience)

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def get(self, key: str) -> Score | None:
        """The score of that key, or None."""
        found = self._do("SELECT name, value, stderr, n, parts, weights, said FROM scores WHERE key = ?", (key,))
        if not found:
            return None
        name, value, stderr, n, parts, weights, said = found[0]
        missing = float("nan")  # sqlite writes NaN as NULL
        try:
            score = Score(
                name, missing if value is None else value, missing if stderr is None else stderr, n,
                unpacked(parts), unpacked(weights), tuple(json.loads(zlib.decompress(said))),
            )  # fmt: skip
        except (zlib.error, ValueError, TypeError):  # a damaged row is an unknown score
            self._do("DELETE FROM scores WHERE key = ?", (key,))
            return None
        self._do("UPDATE scores SET used = ? WHERE key = ?", (time.time(), key))
        return score

    def put(self, key: str, score: Score, seconds: float = 0.0) -> None:
        """Keep a score: there after a kill from the moment that this returns."""
        said = zlib.compress(json.dumps(score.said).encode())
        row = (
            key, time.time(), score.name, score.value, score.stderr, score.n, packed(score.parts), packed(score.weights),
            said, seconds,
        )  # fmt: skip
        self._do("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._put += 1
        if self._put % FLUSHED == 0:
            self._shrink()

    def _shrink(self) -> None:
        """Forget what was longest unused where the file has outgrown its bounds."""
        size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        rows = self._do(size)
        if rows and rows[0][0] > self.most:
            self._do(
                "DELETE FROM scores WHERE key IN (SELECT key FROM scores ORDER BY used LIMIT (SELECT count(*) / 3 FROM scores))"
            )
            self._do("VACUUM")

    def remember(self, curve: Curve, owner: str = "") -> None:
        """Keep a curve for its owner, in the place of an earlier one of the same triple, path and score."""
        document = json.dumps(astuple(curve))
        self._do("INSERT OR REPLACE INTO curves VALUES (?, ?, ?, ?)", (curve.id, owner, time.time(), document))
        self._do(
            "DELETE FROM curves WHERE owner = ? AND id NOT IN (SELECT id FROM curves WHERE owner = ? ORDER BY made DESC LIMIT 60)",
            (owner, owner),
        )

    def curves(self, owner: str = "") -> list[Curve]:
        """The owner's curves, the latest first."""
        rows = self._do("SELECT document FROM curves WHERE owner = ? ORDER BY made DESC", (owner,))
        found = (json.loads(document) for (document,) in rows)
        return [
            Curve(triple, scorer, title, path, axis, score, tuple(at), tuple(keys))
            for triple, scorer, title, path, axis, score, at, keys in found
        ]

    def forget(self, owner: str) -> None:
        """Drop the curves of an owner who has left."""
        self._do("DELETE FROM curves WHERE owner = ?", (owner,))

    def _do(self, sql: str, values: Sequence = ()) -> list[tuple]:
        try:
            with self._lock:
                found = self._base.execute(sql, values).fetchall()
                self._base.commit()
                return found
        except sqlite3.Error as error:  # a full disk, say
            if str(error) not in self._told:  # once each, and not for every score
                self._told.add(str(error))
                log.warning("A result could not be kept or found in %s: %s.", self.path, error)
            return []


def connect(where: str, patience: float) -> sqlite3.Connection:
    """An open results file with its tables. Raises sqlite3.Error."""
    base = sqlite3.connect(where, timeout=patience, check_same_thread=False)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=NORMAL")
    (layout,) = base.execute("PRAGMA user_version").fetchone()
    if layout != LAYOUT:
        base.executescript("DROP TABLE IF EXISTS scores; DROP TABLE IF EXISTS curves;")
    base.executescript(TABLES)
    base.execute(f"PRAGMA user_version = {LAYOUT}")
    base.execute("SELECT count(*) FROM scores").fetchone()
    return base


def packed(numbers: Sequence[float]) -> bytes:
    return zlib.compress(np.asarray(numbers, "<f8").tobytes(), 1)


def unpacked(blob: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(zlib.decompress(blob), "<f8").tolist())
