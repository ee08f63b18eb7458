"""What a machine refuses: room on the disk, folders that cannot be written, memory, open files."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.ground import Ground, undone
from tests.faults.judge import Outcome, Verdict, broken, refusal
from tests.faults.kills import stages_of
from tests.faults.processes import Attempt, Preparation, run
from tests.faults.projects import COPY, files_of, outputs, state_of
from tests.faults.record import Kind

CAPABILITIES = (1, 2, 3)  # with which root may write what nobody may: DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
VERSION_3 = 0x20080522  # of the structure that capset(2) takes
MEGABYTE = 2**20


def full_disk(ground: Ground, count: int, stages: tuple[str, ...]) -> Kind:
    """A small disk of its own where one may be mounted; elsewhere the error of one, at a random write."""
    text = "a disk that is full at a random moment of a stage; with room again, the same command"
    with ground.kind("full disk", text) as kind:
        mounted = ground.folder / "disk"
        for number, (stage, model), moments in kind.left(stages_of(ground, stages, count)):
            line, project = undone(ground, stage, model)
            room, call = moments.randrange(1, 40) * 4096, moments.randint(1, 6)
            with small_disk(mounted, project, room) as is_mounted:
                if is_mounted:
                    project = mounted / "project"
                    attempt, what = run(project, line), f"with room for {room} bytes"
                    subprocess.run(["mount", "-o", "remount,size=300m", mounted], check=True)
                else:
                    attempt, what = run(project, line, failing_at(call, errno.ENOSPC)), f"full at write {call}"
                kind.add(number, f"{' '.join(line)} {what}", after_shortage(ground, project, line, attempt))
    return kind


def limits(ground: Ground, count: int, stages: tuple[str, ...]) -> Kind:
    """Memory, open files and the size of files, little more than the stage has when it begins."""
    text = "a limit on memory, on open files or on the size of files, a little above what a stage begins with"
    with ground.kind("little memory, few files", text) as kind:
        for number, (stage, model), moments in kind.left(stages_of(ground, stages, count)):
            line, project = undone(ground, stage, model)
            which = ("memory", "open files", "size of files")[number % 3 if len(stages) % 3 else moments.randrange(3)]
            amount = {
                "memory": moments.randrange(400) * MEGABYTE,
                "open files": moments.randrange(12),
                "size of files": moments.randrange(20_000),
            }[which]
            attempt = run(project, line, limiting(which, amount))
            kind.add(number, f"{' '.join(line)}, {which}: {amount}", after_shortage(ground, project, line, attempt))
    return kind


def read_only(ground: Ground, count: int, stages: tuple[str, ...]) -> Kind:
    """A folder of the stage's outputs that cannot be written."""
    text = "a folder that a stage writes into, read-only; writable again, the same command"
    with ground.kind("read-only folders", text) as kind:
        for number, (stage, model), moments in kind.left(stages_of(ground, stages, count)):
            line, project = undone(ground, stage, model)
            folder = project / Path(moments.choice(outputs(stage, model)).replace("*", "x")).parent
            while not folder.exists():
                folder = folder.parent
            folder.chmod(0o555)
            attempt = run(project, line, without_override)
            folder.chmod(0o755)
            what = f"{' '.join(line)}, {folder.relative_to(project)} read-only"
            kind.add(number, what, after_shortage(ground, project, line, attempt))
    return kind


def after_shortage(ground: Ground, project: Path, line: tuple[str, ...], attempt: Attempt) -> Verdict:
    """A refusal leaves nothing that is half; the same command without the shortage ends as undisturbed."""
    if (verdict := broken(attempt)) is not None:
        return verdict
    if attempt.code and not (verdict := refusal(attempt)).is_good:
        return verdict
    if changed := ground.changed(project, is_whole=attempt.code == 0):
        return Verdict(Outcome.WRONG, f"after exit code {attempt.code}: {'; '.join(changed)}")
    if attempt.code == 0:
        return Verdict(Outcome.SAME)
    said = refusal(attempt)
    again = ground.verdict(project, [run(project, line)])
    return said if again.is_good else Verdict(again.outcome, f"again: {again.reason}")


@contextmanager
def small_disk(mounted: Path, project: Path, room: int) -> Generator[bool]:
    """The project on a disk of its own with so many bytes left; False, and nothing done, where none may be mounted."""
    mounted.mkdir(exist_ok=True)
    small = [path for path in files_of(project) if not {"data", COPY} & set(path.relative_to(project).parts)]
    size = sum(-(-path.stat().st_size // 4096) * 4096 for path in small) + 4096 * len(list(project.rglob("*"))) + room
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        for path in files_of(project):
            target = mounted / "project" / path.relative_to(project)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in small:
                shutil.copy(path, target)
            else:
                target.symlink_to(path)
        assert state_of(mounted / "project") == state_of(project)
        yield True
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def failing_at(call: int, number: int) -> Preparation:
    """The `call`-th fsync fails with an error of the system."""

    def prepare() -> None:
        original, left = os.fsync, [call]

        def failing(descriptor: int) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(number, os.strerror(number))
            original(descriptor)

        os.fsync = failing

    return prepare


def limiting(which: str, amount: int) -> Preparation:
    """So many bytes, or open files, more than the process has."""

    def prepare() -> None:
        if which == "memory":
            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
            kind, limit = resource.RLIMIT_AS, pages * resource.getpagesize() + amount
        elif which == "open files":
            kind, limit = resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) + amount
        else:
            kind, limit = resource.RLIMIT_FSIZE, amount
        resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))

    return prepare


def without_override() -> None:
    """Root obeys the permissions of files from now on, as everybody else does. Raises: OSError."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for bit in CAPABILITIES:
        sets[0] &= ~(1 << bit)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
