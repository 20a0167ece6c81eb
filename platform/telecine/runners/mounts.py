"""What a container sees of this machine's disk: folders at the paths by which they are named, and where links lead.

A path is looked up again inside, where only what is mounted is there. So each link that is met on the way within a
mounted folder is followed as the container will, and what it leads to is mounted where the container will look.
"""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from telecine.errors import InputError

MAX_HOPS = 40
"""Links on the way to one file; the kernel follows as many."""
MAX_LINKED_FOLDERS = 64
_TOP_LEVEL = "bin dev etc home lib lib64 opt opt/telecine proc root run sbin sys tmp usr var"
OF_THE_IMAGE = frozenset({Path("/"), *(Path("/", name) for name in _TOP_LEVEL.split())})
"""Folders that a component needs as its image has them."""


class Mounts:
    """Bind mounts of one container, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._sources: dict[Path, Path] = {}
        self._options: dict[Path, tuple[str, ...]] = {}

    def add(self, path: Path, *options: str) -> None:
        """Make a file or folder reachable, at its own path."""
        for seen, source in self._lookups(path):
            self._mount(seen, source, *options)

    def add_linked(self, folder: Path) -> None:
        """Make what links inside a mounted folder lead to reachable, for reading; links to nowhere stay so.

        Of a linked file the folder is mounted: footage is often thousands of links into one.

        Raises:
            InputError: they lead to too many folders, or to one that the image needs.
        """
        before, folders = len(self._sources), [folder]
        while folders:
            for link in _links(folders.pop()):
                for seen, source in self._lookups(link):
                    self._mount_linked(link, seen, source)
                    if source.is_dir():
                        folders.append(seen)
                if len(self._sources) - before > MAX_LINKED_FOLDERS:
                    raise InputError(
                        f"links inside {folder} lead to more than {MAX_LINKED_FOLDERS} folders outside of it, {link} "
                        "among them; each is a mount of the container: put the files into fewer folders, or copy them"
                    )

    def lines(self) -> list[str]:
        """The mounts as the engines read them: each a line of CSV, so any path can be said."""
        return [self._line(path) for path in self._sources]

    def _lookups(self, path: Path) -> Iterator[tuple[Path, Path]]:
        """Where the container will look for a path, and what is there on this machine, where nothing is mounted yet."""
        seen, here = path, path
        for _ in range(MAX_HOPS):
            root = self._root_of(seen)
            if root is None:
                yield seen, here
                root = self._root_of(seen)
            if root is None:
                return
            found = _first_link(self._sources[root], seen.relative_to(root))
            if found is None:
                return
            link, rest = found
            target = os.readlink(link)
            inside = root / link.relative_to(self._sources[root])
            seen = Path(os.path.normpath(inside.parent / target)) / rest
            here = link.parent / target / rest

    def _root_of(self, path: Path) -> Path | None:
        """The mounted path nearest above it."""
        return next((parent for parent in (path, *path.parents) if parent in self._sources), None)

    def _mount_linked(self, link: Path, seen: Path, source: Path) -> None:
        if source.is_dir() and seen in OF_THE_IMAGE:
            raise InputError(
                f"the link {link} leads to {seen}, which the image has itself; let it lead to a folder below"
            )
        if source.is_dir() or seen.parent in OF_THE_IMAGE:
            self._mount(seen, source, "readonly")
        else:
            self._mount(seen.parent, source.parent, "readonly")

    def _mount(self, seen: Path, source: Path, *options: str) -> None:
        self._sources[seen] = Path(os.path.realpath(source))
        self._options[seen] = options

    def _line(self, path: Path) -> str:
        line = io.StringIO()
        words = ["type=bind", f"src={self._sources[path]}", f"dst={path}", *self._options[path]]
        csv.writer(line, lineterminator="").writerow(words)
        return line.getvalue()


def _first_link(source: Path, below: Path) -> tuple[Path, Path] | None:
    """The first link on the way from a folder to a path below it, and what is left of the way."""
    for depth in range(1, len(below.parts) + 1):
        found = source.joinpath(*below.parts[:depth])
        if found.is_symlink():
            return found, Path(*below.parts[depth:])
    return None


def _links(folder: Path) -> Iterator[Path]:
    """Links inside a folder, however deep, that lead somewhere."""
    for parent, folders, files in os.walk(folder):
        for name in sorted(folders) + sorted(files):
            path = Path(parent, name)
            if path.is_symlink() and path.exists():
                yield path
