"""SQLite on a disk that fails: a VFS, put in front of the default one, whose writes and syncs do as a test says.

The table of methods of each file that SQLite opens is replaced by a copy in which writing, cutting and syncing ask
`SqliteFaults` first. It is registered with the library that Python's `sqlite3` uses, as the default VFS for as long as
`failing()` lasts, so that the stores are tested as they are.
"""

from __future__ import annotations

import ctypes
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CRASHES = ("crash", "torn", "lose", "some")
ERRORS = ("full", "short", "eio", "eio_sync", "no_index")

OK = 0
FULL = 13
IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE, IOERR_DELETE, IOERR_SHMSIZE = (10 | kind << 8 for kind in (3, 4, 6, 10, 19))
KINDS = {
    "full": ("write",),
    "short": ("write",),
    "eio": ("write", "truncate"),
    "eio_sync": ("sync",),
    "no_index": ("map",),
    **dict.fromkeys(CRASHES, ("write", "truncate", "sync", "delete", "map")),
}
"""The kinds of operation that fail in a mode; `map` makes room for the index of the log in shared memory."""

OPEN_T = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
DELETE_T = ctypes.CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
CLOSE_T = ctypes.CFUNCTYPE(c_int, c_void_p)
WRITE_T = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
TRUNCATE_T = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64)
SYNC_T = ctypes.CFUNCTYPE(c_int, c_void_p, c_int)
MAP_T = ctypes.CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, c_void_p)


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", OPEN_T),
        ("xDelete", DELETE_T),
        *((f"other{number}", c_void_p) for number in range(14)),
    ]


class _Methods(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int),
        ("xClose", CLOSE_T),
        ("xRead", c_void_p),
        ("xWrite", WRITE_T),
        ("xTruncate", TRUNCATE_T),
        ("xSync", SYNC_T),
        *((f"other{number}", c_void_p) for number in range(7)),
        ("xShmMap", MAP_T),
        *((f"more{number}", c_void_p) for number in range(5)),
    ]


class _File(ctypes.Structure):
    _fields_ = [("pMethods", ctypes.POINTER(_Methods))]


Change = tuple[int, bytes] | int
"""What was done to a file: bytes written at an offset, or the size it was cut to."""


@dataclass
class _OnDisk:
    """What a file holds on stable storage, None where it has no name there, and what was done to it since."""

    stable: bytearray | None
    unsynced: list[Change] = field(default_factory=list)

    def after(self, changes: list[Change]) -> bytearray:
        content = bytearray(self.stable or b"")
        for change in changes:
            if isinstance(change, int):
                del content[change:]
            else:
                offset, data = change
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
        return content


class SqliteFaults:
    """What becomes of the writes, cuts, syncs and removals of SQLite: number `fail_at` (from 1) fails, with 0 none.

    Modes: `crash` lets the operation happen and nothing after it, `torn` half of it; `lose` lets neither it happen nor
    anything that was not synced before it, `some` keeps every second of those; `full` refuses to write, `short` writes
    half of the bytes first, `eio` refuses to write or cut, `eio_sync` to sync, `no_index` has no room for the index of
    the log. With `is_persistent` every later operation fails like it. `heal()` ends an error. After a crash all of them
    fail; when everything is closed, `cut_power()` leaves on the disk what a power loss would.

    `operations` has the kinds of the operations so far.
    """

    def __init__(self, fail_at: int = 0, mode: str = "crash", *, is_persistent: bool = False) -> None:
        if mode not in CRASHES + ERRORS:
            raise ValueError(f"unknown mode {mode!r}; known: {', '.join(CRASHES + ERRORS)}")
        self.operations: list[str] = []
        self.has_failed = False
        self._fail_at = fail_at
        self._mode = mode
        self._is_persistent = is_persistent
        self._only = ""
        self._is_off = False
        self._lock = threading.Lock()
        self._files: dict[Path, _OnDisk] = {}
        self._removed: dict[Path, _OnDisk] = {}

    def fail(self, mode: str, *, only: str = "") -> None:
        """Let every operation fail from now on; with `only`, those on files whose name ends so."""
        self._fail_at, self._mode, self._is_persistent, self._only = len(self.operations) + 1, mode, True, only

    def heal(self) -> None:
        """Let every operation succeed from now on."""
        self._fail_at = 0

    def cut_power(self) -> None:
        """Leave on the disk what a power loss leaves; after `crash` and `torn`, which end only the process, all."""
        if not self.has_failed or self._mode not in ("lose", "some"):
            return
        for path, on_disk in {**self._removed, **self._files}.items():
            kept = on_disk.unsynced[::2] if self._mode == "some" else []
            if on_disk.stable is None and not kept:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(on_disk.after(kept))
            Path(f"{path}-shm").unlink(missing_ok=True)

    def opening(self, path: Path) -> None:
        """Take a file for stable as it is when it is first opened."""
        if path not in self._files:
            self._files[path] = _OnDisk(bytearray(path.read_bytes()) if path.exists() else None)

    def write(self, path: Path, data: bytes, offset: int) -> tuple[int, int]:
        """Return how many of the bytes are to be written, and the code to answer with."""
        fault = self._step(path, "write")
        size = {None: len(data), "crash": len(data), "torn": len(data) // 2, "short": len(data) // 2}.get(fault, 0)
        if size:
            self._files[path].unsynced.append((offset, data[:size]))
        if fault in ("full", "short"):
            return size, FULL
        return size, OK if fault is None else IOERR_WRITE

    def truncate(self, path: Path, size: int) -> tuple[bool, int]:
        fault = self._step(path, "truncate")
        if fault in (None, "crash"):
            self._files[path].unsynced.append(size)
        return fault in (None, "crash"), OK if fault is None else IOERR_TRUNCATE

    def sync(self, path: Path) -> tuple[bool, int]:
        fault = self._step(path, "sync")
        if fault in (None, "crash"):
            on_disk = self._files[path]
            on_disk.stable, on_disk.unsynced = on_disk.after(on_disk.unsynced), []
            self._removed.clear()  # a file system that keeps a journal has written down earlier removals by now
        return fault in (None, "crash"), OK if fault is None else IOERR_FSYNC

    def map_index(self, path: Path) -> int:
        return OK if self._step(path, "map") is None else IOERR_SHMSIZE

    def delete(self, path: Path) -> tuple[bool, int]:
        fault = self._step(path, "delete")
        if fault in (None, "crash") and path in self._files:
            self._removed[path] = self._files.pop(path)
        return fault in (None, "crash"), OK if fault is None else IOERR_DELETE

    def _step(self, path: Path, kind: str) -> str | None:
        """Count an operation, and return the mode in which it fails."""
        with self._lock:
            if self._is_off:
                return "off"
            self.operations.append(kind)
            number = len(self.operations)
            is_due = number == self._fail_at or (number > self._fail_at > 0 and self._is_persistent)
            if not is_due or not path.name.endswith(self._only) or kind not in KINDS[self._mode]:
                return None
            self.has_failed = True
            self._is_off = self._mode in CRASHES
            return self._mode


class FailingVfs:
    """The VFS of this process; `faults` are those of the files that are opened from now on."""

    NAME = b"abstractgateway-tests"

    def __init__(self) -> None:
        self.faults: SqliteFaults | None = None
        self._library = _library()
        self._original = ctypes.cast(self._library.sqlite3_vfs_find(None), ctypes.POINTER(_Vfs))
        self._vfs = _Vfs.from_buffer_copy(self._original.contents)
        self._vfs.zName = self.NAME
        self._vfs.pNext = None
        self._vfs.xOpen = OPEN_T(self._open)
        self._vfs.xDelete = DELETE_T(self._delete)
        self._tables: dict[int, tuple[_Methods, _Methods]] = {}  # by the address of the original
        self._files: dict[int, tuple[SqliteFaults, Path, _Methods]] = {}  # by the address of the file
        if not self._is_seen_by_python():
            raise OSError("Python's sqlite3 uses another copy of SQLite than the one that was found")

    def register(self) -> None:
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)

    def unregister(self) -> None:
        """Make the original the default again."""
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
        self._library.sqlite3_vfs_register(self._original, 1)

    def _is_seen_by_python(self) -> bool:
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 0)
        try:
            sqlite3.connect(f"file:seen?mode=memory&vfs={self.NAME.decode()}", uri=True).close()
        except sqlite3.OperationalError:
            return False
        finally:
            self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
        return True

    def _open(self, vfs: int, name: int | None, file: int, flags: int, flags_out: int | None) -> int:
        path = Path(ctypes.string_at(name).decode()) if name else None
        faults = self.faults
        if faults is not None and path is not None:
            faults.opening(path)
        original_vfs = self._original.contents
        answer: int = original_vfs.xOpen(ctypes.addressof(original_vfs), name, file, flags, flags_out)
        opened = _File.from_address(file)
        if answer == OK and faults is not None and path is not None:
            own, original = self._table_of(opened.pMethods)
            self._files[file] = (faults, path, original)
            opened.pMethods = ctypes.pointer(own)
        return answer

    def _table_of(self, methods: Any) -> tuple[_Methods, _Methods]:
        address = ctypes.addressof(methods.contents)
        if address not in self._tables:
            original = _Methods.from_address(address)
            own = _Methods.from_buffer_copy(original)
            own.xClose, own.xWrite = CLOSE_T(self._close), WRITE_T(self._write)
            own.xTruncate, own.xSync = TRUNCATE_T(self._truncate), SYNC_T(self._sync)
            own.xShmMap = MAP_T(self._map_index)
            self._tables[address] = (own, original)
        return self._tables[address]

    def _close(self, file: int) -> int:
        _, _, original = self._files.pop(file)
        return int(original.xClose(file))

    def _write(self, file: int, data: int, size: int, offset: int) -> int:
        faults, path, original = self._files[file]
        wanted, answer = faults.write(path, ctypes.string_at(data, size), offset)
        return (int(original.xWrite(file, data, wanted, offset)) if wanted else OK) or answer

    def _truncate(self, file: int, size: int) -> int:
        faults, path, original = self._files[file]
        is_wanted, answer = faults.truncate(path, size)
        return (int(original.xTruncate(file, size)) if is_wanted else OK) or answer

    def _sync(self, file: int, flags: int) -> int:
        """Sync nothing: what would be lost is kept account of instead, and costs no time."""
        faults, path, _ = self._files[file]
        _, answer = faults.sync(path)
        return answer

    def _map_index(self, file: int, number: int, size: int, extends: int, mapped: int) -> int:
        faults, path, original = self._files[file]
        answer = faults.map_index(path) if extends else OK
        return answer or int(original.xShmMap(file, number, size, extends, mapped))

    def _delete(self, vfs: int, name: bytes, sync_directory: int) -> int:
        is_wanted, answer = True, OK
        if self.faults is not None and Path(name.decode()).exists():
            is_wanted, answer = self.faults.delete(Path(name.decode()))
        if not is_wanted:
            return answer
        original = self._original.contents
        return int(original.xDelete(ctypes.addressof(original), name, 0)) or answer


def _library() -> Any:
    """Return the SQLite that Python uses. Raises `OSError` where its functions cannot be reached."""
    import _sqlite3

    for name in (getattr(_sqlite3, "__file__", None), "libsqlite3.so.0"):
        try:
            library = ctypes.CDLL(name)
            library.sqlite3_vfs_find.argtypes, library.sqlite3_vfs_find.restype = [c_char_p], c_void_p
            library.sqlite3_vfs_register.argtypes = [c_void_p, c_int]
            library.sqlite3_vfs_unregister.argtypes = [c_void_p]
        except (OSError, AttributeError):
            continue
        return library
    raise OSError("the functions of the SQLite that Python uses cannot be reached")


_made: list[FailingVfs] = []


@contextmanager
def failing() -> Iterator[FailingVfs]:
    """Have every file that SQLite opens meanwhile go through the VFS. Raises `OSError` where that cannot be."""
    if not _made:
        _made.append(FailingVfs())  # for good: SQLite may look at it as long as a file is open
    vfs = _made[0]
    vfs.register()
    try:
        yield vfs
    finally:
        vfs.faults = None
        vfs.unregister()
