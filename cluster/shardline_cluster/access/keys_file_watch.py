"""Reads a keys file, and reads it again when it has changed. The only part of the keys that touches a disk."""

import logging
import stat
from dataclasses import dataclass
from pathlib import Path

from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.keys_file import holds_secrets, parse_keys_file
from shardline_cluster.errors import ConfigurationError

log = logging.getLogger(__name__)

MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class _Version:
    """What of a file differs once somebody has written it, put another one in its place, or let us read it."""

    inode: int
    size_bytes: int
    changed_ns: int  # content, owner or mode: one that could not be read may be readable now


class KeysFileWatch:
    """One file. Its methods block for as long as a disk takes, and belong to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: _Version | None = None  # the version whose keys were given, or refused
        self._seen: _Version | None = None  # at the last look
        self._is_missed = False

    def read(self) -> tuple[ApiKey, ...]:
        """The keys in the file as it is.

        Raises:
            ConfigurationError: it cannot be read, or a line is wrong.
        """
        self._read = self._seen = self._version()
        return self._keys()

    def look(self) -> tuple[ApiKey, ...] | None:
        """The keys, where the file has changed since it was read last; None where it has not.

        A change is believed when two looks in a row find the same file: one that is just being written may end in the
        middle, and for a moment nobody whose key stands further down would have one. A broken or missing file changes
        nothing, and is told once in the log.
        """
        try:
            version, before = self._version(), self._seen
        except ConfigurationError as error:
            self._tell_once(error)
            return None
        self._is_missed, self._seen = False, version
        if version == self._read or version != before:
            return None
        self._read = version
        try:
            keys = self._keys()
        except ConfigurationError as error:
            log.error("the keys file has changed, but is broken, so the keys before it still count: %s", error)
            return None
        log.info("the keys file has changed and holds %d keys now", len(keys))
        return keys

    def _tell_once(self, error: ConfigurationError) -> None:
        if not self._is_missed:
            log.error("the keys that were read before still count: %s", error)
        self._is_missed = True

    def _version(self) -> _Version:
        try:
            found = self._path.stat()
        except OSError as error:
            raise _unreadable(self._path, error) from None
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"--api-keys-file {self._path} is no file: name a file with a key in each line")
        if found.st_size > MAX_BYTES:
            raise ConfigurationError(
                f"--api-keys-file {self._path} has {found.st_size} bytes, but at most {MAX_BYTES} are read: is it the "
                "right file?"
            )
        return _Version(found.st_ino, found.st_size, found.st_ctime_ns)

    def _keys(self) -> tuple[ApiKey, ...]:
        try:
            text = self._path.read_text(encoding="utf-8")
            mode = self._path.stat().st_mode
        except OSError as error:
            raise _unreadable(self._path, error) from None
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"--api-keys-file {self._path}: byte {error.start} is no UTF-8") from None
        keys = parse_keys_file(text, str(self._path))
        if mode & stat.S_IROTH and holds_secrets(text):
            log.warning("every user of this machine can read the keys in %s: chmod o-r it", self._path)
        if mode & stat.S_IWOTH:
            log.warning("every user of this machine can write keys of his own into %s: chmod o-w it", self._path)
        return keys


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"--api-keys-file {path} cannot be read: {error.strerror or error}")
