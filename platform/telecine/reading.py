"""Artifacts as local files: in place where the store is a folder, else downloaded once."""

import hashlib
from pathlib import Path

from telecine.storage import Store
from telecine.work import address


class Reader:
    """Reads from a store, and from whatever else an artifact's URI names.

    Args:
        scratch: folder for what is downloaded.
    """

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch
        self._downloads: set[str] = set()

    def fetch(self, uri: str) -> Path:
        """Local, read-only path of an artifact."""
        path = self._store.path_of(uri)
        if path is not None:
            return self.path(path)
        return self._downloaded(*address.elsewhere(uri)) if uri.startswith("s3://") else address.local_path(uri)

    def path(self, store_path: str) -> Path:
        """Local, read-only path of a file or folder named relative to the store's root."""
        return self._store.local(store_path) or self._downloaded(self._store, store_path)

    def _downloaded(self, store: Store, path: str) -> Path:
        root = self._scratch / "store" / hashlib.sha256(store.uri.encode()).hexdigest()[:8]
        if store.uri_of(path) in self._downloads:
            return root / path
        committed = address.committed_files(path, store) if store is self._store else {}
        # A listing may be stale, a commit is not. And a store lists what lies below a folder, never the object itself.
        names = [name for name in committed if f"{name}/".startswith(f"{path}/")]
        for name in names or [entry.path for entry in store.entries(path)] or [path]:
            store.download(name, root / name, sha256=committed.get(name, {}).get("sha256"))
        self._downloads.add(store.uri_of(path))
        return root / path
