"""Checks that a bundle has the files of its manifest and no other, each as it says and in its one form.

Knows no figure and no proof. Source of truth: the bundle's manifest, RFC 8785.
"""

import json
import re
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Any, Final

import rfc8785

from wattledger_collector.bundle_files import JSON_BYTES_MAX, Files
from wattledger_collector.verdict import Verdict

MANIFEST: Final = "manifest.json"


class CheckedFiles:
    """The files of a bundle, with a verdict to which each step adds what it finds."""

    def __init__(self, files: Files, verdict: Verdict) -> None:
        self.files = files
        self.verdict = verdict

    def canonical(self, name: str) -> Any:
        """What a JSON file says. Raises OSError and ValueError."""
        data = self.files.read(name)
        if len(data) > JSON_BYTES_MAX:
            raise ValueError(f"{name} has more than {JSON_BYTES_MAX} bytes, which no text of a bundle has")
        tree = json.loads(data)
        if rfc8785.dumps(tree) != data:
            self.verdict.complain(f"{name} is not in its canonical form: it was changed")
        return tree

    def check_manifest(self, forms: Mapping[str, tuple[Collection[str], re.Pattern[str]]]) -> str:
        """The form of the bundle. forms: by name, the files that it must have, and the names that others may have.

        Raises OSError and ValueError.
        """
        manifest = self.canonical(MANIFEST)
        form = manifest["format"]
        if set(manifest) != {"format", "files"} or form not in forms:
            raise ValueError(f"{MANIFEST} is not of a form that this program knows: {' or '.join(map(repr, forms))}")
        needed, others = forms[form]
        files: dict[str, dict[str, Any]] = manifest["files"]
        there = set(self.files.names) - {MANIFEST}
        for name in sorted(there | set(files)):
            # Nothing but these is vouched for by the log: a manifest is whoever's who packed the files.
            if name not in files or not (name in needed or others.fullmatch(name)):
                self.verdict.complain(f"{name} does not belong to the bundle")
        for name in sorted((set(files) | set(needed)) - there):
            self.verdict.complain(f"{name} is missing")
        for name in sorted(set(files) & there):
            data = self.files.read(name)
            if files[name] != {"bytes": len(data), "sha256": sha256(data).hexdigest()}:
                self.verdict.complain(f"{name} was changed, or {MANIFEST} was")
            self._check_damage(name)
        self._check_damage(MANIFEST)
        return str(form)

    def _check_damage(self, name: str) -> None:
        if self.files.is_damaged(name):
            self.verdict.complain(f"{name} does not have the check sum beside it in the zip file")
