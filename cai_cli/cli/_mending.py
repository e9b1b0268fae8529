"""What to type about what `cai verify` found. Only what is made again, just as it was, is told to be deleted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from cai_cli import config as configs
from cai_cli.cli.summary import command_line, nearest
from cai_cli.config import Config
from cai_cli.engine import export, plan, versions
from cai_cli.engine.makes import made_now
from cai_cli.errors import Fix

# version: its files are not those that were published. card: of a version or a folder, gone or out of date. edited: a version's
# card is another one. stray: a file that is none of the version's. link: `latest`. unreadable: by the user; newer: by this cai.
How = Literal["version", "card", "edited", "stray", "link", "unreadable", "newer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `stage`: the folder of the stage or export; `path`: what is to be mended, as `how` says"""

    stage: Path
    path: Path
    how: How


class Mending:
    """The way back. Takes: `of_exports`: whether --out named the folder that was looked at"""

    def __init__(self, config: Config, output: Path, found: Sequence[Finding], of_exports: bool) -> None:
        self._config, self._output, self._found, self._of_exports = config, output, found, of_exports

    def _paths(self, *how: How) -> list[Path]:
        return list(dict.fromkeys(one.path for one in self._found if one.how in how))

    @cached_property
    def _made(self) -> Mapping[str, str]:
        return made_now(self._config)

    @property
    def _ledger(self) -> Path:
        return self._config.state_path / "ledger.sqlite"

    # Versions.

    @cached_property
    def remove(self) -> list[Path]:
        """Damaged versions that the commands of `run` make again, just as they were, for nothing."""
        return [path for path in self._paths("version") if self._is_made(path) and not self._is_bought(path)]

    @cached_property
    def lost(self) -> list[Path]:
        """Damaged versions that only a copy brings back."""
        return [path for path in self._paths("version") if path not in self.remove]

    def _is_made(self, version: Path) -> bool:
        """Whether the config, or an export of what is newest, is just this version."""
        stage = version.parent.name
        if stage in plan.stage_names():
            return version.name.endswith(f"-{self._made[stage][:8]}") if stage in self._made else False
        try:
            source = export.source_of(self._config_of(version.parent), stage)
            parents = [parent["fingerprint"] for parent in versions.read(version).manifest["parents"]]
        except (Fix, KeyError):
            return False
        return parents == [source.fingerprint] and version.name == _newest(version.parent)

    def _config_of(self, folder: Path) -> Config:
        """The config of the rows that an export is made of: -o, too, may name a folder that `cai export --out` wrote."""
        return configs.load(self._config.path) if folder.parent == self._output and not self._of_exports else self._config

    def _is_bought(self, version: Path) -> bool:
        """Whether its rows would have to be bought: what was paid for them is in no ledger any more."""
        stage = version.parent.name
        return stage in plan.stage_names() and stage not in plan.table_names() and not self._ledger.exists()

    # Links.

    @cached_property
    def _by_hand(self) -> dict[Path, Path]:
        """Links that no run sets to a version that is there, since the config makes another; with the newest of the stage."""
        found = {}
        for link in self._paths("link"):
            there = [path for path in link.parent.iterdir() if versions.number_of(path.name)]
            if link.parent.name in plan.stage_names() and not any(map(self._is_made, there)):
                found[link] = max(there, key=lambda path: versions.number_of(path.name))
        return found

    # What to type.

    @cached_property
    def run(self) -> list[str]:
        """Command lines that make versions again, and mend links and cards."""
        by_run = [*self.remove, *self._paths("card", "edited"), *(one for one in self._paths("link") if one not in self._by_hand)]
        return list(dict.fromkeys(self._commands({one.stage: None for one in self._found if one.path in by_run})))

    def _commands(self, folders: Iterable[Path]) -> Iterator[str]:
        folders = list(folders)
        stages = [folder.name for folder in folders if folder.name in plan.stage_names()]
        if any(map(plan.reads_of, stages)):
            yield command_line("run", self._config)
        yield from (command_line(name, self._config) for name in stages if not plan.reads_of(name))
        for folder in (folder for folder in folders if folder.name not in plan.stage_names()):
            words = shlex.join(["--to", folder.name, *_options_of(folder)])
            if folder.parent != self._output:
                yield f"{command_line('export', self._config)} {words}"
            else:  # -o, too, may name a folder that `cai export --out` wrote
                plain = shlex.join(["cai", "export", str(self._config.path)])
                command = command_line("export", self._config) if self._of_exports else plain
                yield f"{command} {words} --out {shlex.quote(str(nearest(self._output)))}"

    @cached_property
    def hints(self) -> list[str]:
        """What to do, in the order in which to do it, each with a command."""
        return [*self._before(), *self._given_up(), *self._again()]

    def _before(self) -> Iterator[str]:
        """Nothing here loses a row."""
        if unreadable := self._paths("unreadable"):
            yield f"let yourself read it, then verify again: {_typed('chmod', '-R', 'u+rX', *unreadable)}"
        if self._paths("newer"):
            yield "take the cai that wrote it, or a newer one: pip install --upgrade cai-cli"
        if strays := self._paths("stray"):
            yield f"move what is no file of a version elsewhere: {_typed('mv', *strays, self._output.parent)}"
        if edited := self._paths("edited"):
            yield f"delete cards that were changed: {_typed('rm', *edited)}; a run writes them as they were"
        for link in self._paths("link"):
            if link.exists() and not link.is_symlink():
                yield f"move away what stands in the place of a link: {_typed('mv', link, link.with_name('latest.old'))}"
        for link, newest in self._by_hand.items():
            by_hand = shlex.join(["ln", "-sfn", newest.name, str(nearest(link))])
            make = command_line("run" if plan.reads_of(link.parent.name) else link.parent.name, self._config)
            yield f"let it name the newest version that is there: {by_hand}; or make what the config makes now: {make}"

    def _given_up(self) -> Iterator[str]:
        for version in self.lost:
            away = _typed("mv", version, version.with_name(f"{version.name}.damaged"))
            yield f"{nearest(version)}: {self._why_lost(version)}; restore it from a copy, or set it aside: {away}"

    def _why_lost(self, version: Path) -> str:
        if self._is_made(version):
            return f"there is no ledger at {nearest(self._ledger)}, so its rows would be bought again"
        if version.parent.name in plan.stage_names():
            return f"{self._config.path} does not make it now, so no run brings it back"
        return "it is no export of what is newest now, so no export brings it back"

    def _again(self) -> Iterator[str]:
        run = f"run: {' && '.join(self.run)}"
        if self.remove:
            from_ledger = any(path.parent.name in plan.stage_names() for path in self.remove)
            back = "its rows come back from the ledger" if from_ledger else "its rows are written anew"
            yield f"delete what is damaged: {_typed('rm', '-r', *self.remove)}; then {run}; {back}, nothing is paid twice"
        elif self.run:
            yield run


def _typed(*words: str | Path) -> str:
    return shlex.join(str(nearest(word)) if isinstance(word, Path) else word for word in words)


def _newest(folder: Path) -> str:
    """The name of the newest version in a folder."""
    return max((path.name for path in folder.iterdir() if versions.number_of(path.name)), key=versions.number_of)


def _options_of(folder: Path) -> list[str]:
    """The options that the newest version of an export was made with, as far as its manifest can be read."""
    try:
        newest = versions.latest(folder.parent, folder.name) or versions.read(folder / _newest(folder))
        return export.words_of(newest.manifest)
    except (Fix, KeyError, ValueError):
        return []
