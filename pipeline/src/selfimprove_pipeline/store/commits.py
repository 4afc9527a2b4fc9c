"""How an artifact comes to lie in its folder, whole and once, however many write it at a time.

Two runs may compute one key at once and get different rows, and any of them may be killed or
halted at any point. So the writers agree first and lay down afterwards:

1. Each writes its files to `attempts/<its token>/`, which no other one touches.
2. Each offers itself as `attempts/chosen.json`, which only the first can create.
3. All copy the files of the chosen one to their names, and its manifest last.

Whoever writes a file under its name thus writes the same content, however late. A chosen one
that was killed is completed by the next writer. When the manifest lies there, `attempts/` goes;
a writer that comes late may then be chosen anew, but looks for the manifest once more before it
writes. This needs a store that keeps to `Store.create`; on another one a mixture may be left,
which readers refuse by its sha256. `repository` is the only user.
"""

import secrets
from collections.abc import Callable

from selfimprove_pipeline.contract.errors import ArtifactError, InputError
from selfimprove_pipeline.contract.manifests import MANIFEST, Manifest
from selfimprove_pipeline.contract.rows import Row
from selfimprove_pipeline.store import Store
from selfimprove_pipeline.store.files import in_parallel, remove_abandoned, remove_empty
from selfimprove_pipeline.store.models import WORK

ATTEMPTS = "attempts/"
CHOSEN = f"{ATTEMPTS}chosen.json"


class Choice(Row):
    """The attempt that becomes the artifact."""

    token: str
    """token names the folder of its files."""
    manifest: Manifest


class Commit:
    """One writer of one artifact, whose folder `uri` ends in a slash."""

    def __init__(self, store: Store, uri: str, present: Callable[[], Manifest | None]) -> None:
        """Take the store, the folder, and how to read the manifest that lies there."""
        self._store = store
        self._uri = uri
        self._present = present
        self._token = secrets.token_hex(8)

    def made(self, manifest: Manifest, put: Callable[[str, str], None]) -> Manifest:
        """Return the artifact's manifest: this one, or that of a writer who was chosen before.

        `put` writes a file of a name to a URI.
        """
        choice = self._choice()
        if choice is None:
            names = [file.name for file in manifest.files]
            in_parallel(lambda name: put(name, self._attempt(self._token) + name), names)
            offer = Choice(token=self._token, manifest=manifest).line()
            self._store.create(self._uri + CHOSEN, offer)
            choice = self._choice()
        # The manifest is looked for after the choice is read: a choice may go, and another one
        # appear, only when the manifest lies there.
        present = self._present()
        if present is not None:
            return present
        if choice is None:
            raise _damaged(self._uri, reason="missing")
        return self._laid_down(choice)

    def clean(self) -> None:
        """Delete what served the making of an artifact that is there now."""
        self._delete(lambda name: name.startswith(WORK))
        folder = self._store.local(self._uri)
        if folder is not None:
            remove_empty(folder / ATTEMPTS / self._token)
            remove_abandoned(folder / ATTEMPTS)
            remove_abandoned(folder)

    def _choice(self) -> Choice | None:
        content = self._store.read(self._uri + CHOSEN)
        try:
            return None if content is None else Choice.of_line(content)
        except ValueError as error:
            raise _damaged(self._uri, reason="truncated or altered") from error

    def _laid_down(self, choice: Choice) -> Manifest:
        """Return the manifest of the choice, or what another writer has laid down meanwhile."""
        names = [file.name for file in choice.manifest.files]
        kept = {*names, MANIFEST}
        self._delete(lambda name: name not in kept and not name.startswith(WORK))
        origin = self._attempt(choice.token)
        try:
            in_parallel(lambda name: self._store.copy(origin + name, self._uri + name), names)
        except InputError:
            present = self._present()
            if present is None:
                raise
            return present
        self._store.write(self._uri + MANIFEST, choice.manifest.line())
        return choice.manifest

    def _attempt(self, token: str) -> str:
        return f"{self._uri}{ATTEMPTS}{token}/"

    def _delete(self, is_old: Callable[[str], bool]) -> None:
        uris = [entry.uri for entry in self._store.entries(self._uri)]
        self._store.delete(uri for uri in uris if is_old(uri.removeprefix(self._uri)))


def _damaged(uri: str, *, reason: str) -> ArtifactError:
    return ArtifactError(f"{uri}{CHOSEN} is {reason}; delete {uri} and run again")
