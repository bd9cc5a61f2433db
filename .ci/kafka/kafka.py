"""Run one real Apache Kafka (KRaft) on this machine, on loopback, from Maven Central's jars: no Docker, no root.

    kafka.py run   [--port 9092]            in the foreground; Ctrl-C stops it cleanly
    kafka.py start [--port 0] [--name N]    in the background; prints HOST:PORT when it serves
    kafka.py stop  [--name N] [--kill]      stop it by its process id
    kafka.py jars                           only fetch what it needs

``--users FILE`` locks it: SASL on every listener (PLAIN and SCRAM-SHA-512), and nobody may do what no ACL allows. The
file has one ``name=password`` a line; the first is the super user. ``--tls DIR`` adds a listener with mutual TLS at the
next port: ``ca.pem`` signs clients, ``broker.pem`` is the broker's key (PKCS #8) with its certificate; a client is
``User:`` and its common name. At the port after that is one with TLS and SASL, for those who have a password only.

Needs ``java`` (17 or newer) and ``mvn``. Everything it writes is under ``.kafka/`` of the project: the jars, fetched
once per version, and a folder per instance with configuration, log and data. Data are dropped at every start unless
``--keep`` is given. Exit codes: 0 done, 1 it could not (one line says why and what to do), 130 interrupted.
"""

import argparse
import ctypes
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ.get("SIGNER_FLOW_KAFKA_HOME", HERE.parent.parent / ".kafka")).resolve()
HOST = "127.0.0.1"
START_S = 120.0
STOP_S = 30.0
MAVEN_S = 900.0
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
"""Starts fast, and no optimizing compiler takes a third of a core for the first minutes, on a machine whose cores
everything shares: a broker that serves for months is past that."""
SMALL_HEAP = ["-Xms256m", "-Xmx512m"]
BENCH_HEAP = ["-Xms1g", "-Xmx1g"]
"""For measurements: it needs no care."""


class Failed(Exception):
    """Says in one line what went wrong and what to do."""


def tool(name: str, package: str) -> str:
    """Path of a program, or the remedy."""
    path = shutil.which(name)
    if path is None:
        raise Failed(f"{name} is not installed (Debian: apt-get install {package}), or use KAFKA_BOOTSTRAP=HOST:PORT")
    return path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a file lock: two runs at once must not fetch into one folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def jars() -> Path:
    """Folder with Kafka's jars, fetched if this pom was not fetched before."""
    pom = HERE / "pom.xml"
    folder = HOME / f"jars-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    with lock(HOME / "jars.lock"):
        if folder.is_dir():
            return folder
        maven = tool("mvn", "maven")
        part = HOME / f"{folder.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        print("fetching Apache Kafka from Maven Central (43 MB, once)", file=sys.stderr)
        # -C: a jar whose checksum does not fit is an error, not a warning.
        command = [maven, "-q", "-B", "-C", "-f", str(pom), COPY_DEPENDENCIES, f"-DoutputDirectory={part}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAVEN_S, check=False)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"mvn did not finish within {MAVEN_S:.0f} s") from late
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or [
                "no reason given"
            ]
            raise Failed(f"mvn could not fetch Apache Kafka: {lines[0]}")
        part.rename(folder)
    return folder


def free_port(count: int = 1) -> int:
    """The first of some ports of loopback that are free, from below those that the system gives to connections."""
    for _ in range(200):
        port = 28_000 + secrets.randbelow(4_000)
        if all(_is_free(port + more) for more in range(count)):
            return port
    raise Failed("no free port was found between 28000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Lock:
    """Who may log in: names with passwords, the first of which is the super user; and the folder for TLS."""

    users: dict[str, str] = field(repr=False)
    tls: Path | None = None

    @property
    def master(self) -> tuple[str, str]:
        """Name and password of the super user."""
        return next(iter(self.users.items()))

    def properties(self, port: int) -> dict[str, str]:
        """Lines of ``server.properties``, in place of the open ones of the template."""
        name, password = self.master
        everybody = " ".join(f'user_{user}="{secret}"' for user, secret in self.users.items())
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required username="{name}"'
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        listeners = f"CLIENT://{HOST}:{port}"
        protocols = "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT"
        found = {
            "inter.broker.listener.name": "CLIENT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.client.plain.sasl.jaas.config": f'{plain} password="{password}" {everybody};',
            "listener.name.client.scram-sha-512.sasl.jaas.config": scram,
            # The controller's port, too: whoever reached it without a login could make himself anybody's equal.
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.controller.plain.sasl.jaas.config": (
                f'{plain} password="{password}" user_{name}="{password}";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{name}",
            "allow.everyone.if.no.acl.found": "false",
        }
        if self.tls is not None:
            listeners += f",TLS://{HOST}:{port + 1},BOTH://{HOST}:{port + 2}"
            protocols += ",TLS:SSL,BOTH:SASL_SSL"
            found |= {
                "listener.name.tls.ssl.keystore.type": "PEM",
                "listener.name.tls.ssl.keystore.location": str(self.tls / "broker.pem"),
                "listener.name.tls.ssl.truststore.type": "PEM",
                "listener.name.tls.ssl.truststore.location": str(self.tls / "ca.pem"),
                "listener.name.tls.ssl.client.auth": "required",
                "listener.name.both.ssl.keystore.type": "PEM",
                "listener.name.both.ssl.keystore.location": str(self.tls / "broker.pem"),
                "listener.name.both.scram-sha-512.sasl.jaas.config": scram,
                "listener.name.both.sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "ssl.principal.mapping.rules": r"RULE:^.*CN=([a-zA-Z0-9._-]+).*$/$1/",
            }
        return found | {"advertised.listeners": listeners, "listener.security.protocol.map": protocols}

    def scram(self) -> list[str]:
        """Arguments that write the users into a new storage."""
        made = (f"SCRAM-SHA-512=[name={user},password={secret}]" for user, secret in self.users.items())
        return [word for user in made for word in ("--add-scram", user)]


def read_users(path: Path) -> dict[str, str]:
    """Read a file of ``name=password`` lines; what could mean something else to Kafka's own readers is refused."""
    users: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        found = re.fullmatch(r"([A-Za-z0-9._-]+)=([A-Za-z0-9._-]+)", line.strip())
        if found is None or found[1] in users:
            raise Failed(f"line {number} of {path} is no new name=password of A-Z, a-z, 0-9, '.', '_' and '-'")
        users[found[1]] = found[2]
    if not users:
        raise Failed(f"{path} names nobody")
    return users


def serves(port: int, login: tuple[str, str] | None = None) -> bool:
    """Whether a broker answers a metadata request and names itself (a listening socket alone proves nothing)."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as conn:
            if login is not None:
                _ask(conn, 17, 1, struct.pack(">h5s", 5, b"PLAIN"))  # SaslHandshake
                token = "\0{}\0{}".format(*login).encode()
                if _ask(conn, 36, 0, struct.pack(f">i{len(token)}s", len(token), token))[:2] != b"\0\0":
                    return False
            # Metadata v1 with an empty list of topics: number of brokers; a fenced broker is not listed yet.
            answer = _ask(conn, 3, 1, struct.pack(">i", 0))
    except OSError:
        return False
    return len(answer) >= 4 and struct.unpack(">i", answer[:4])[0] >= 1


def _ask(conn: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """Send one request of Kafka's protocol, as client "probe", and return what follows the answer's correlation id."""
    request = struct.pack(">hhih5s", api, version, 1, 5, b"probe") + body
    conn.sendall(struct.pack(">i", len(request)) + request)
    size = struct.unpack(">i", _exactly(conn, 4))[0]
    return _exactly(conn, size)[4:]


def _exactly(conn: socket.socket, size: int) -> bytes:
    answer = b""
    while len(answer) < size:
        more = conn.recv(size - len(answer))
        if not more:
            raise ConnectionError
        answer += more
    return answer


class Instance:
    """One broker: its folder, its process."""

    def __init__(self, name: str) -> None:
        self.folder = HOME / "instances" / name
        self.pid_file = self.folder / "pid"
        self.log = self.folder / "server.log"
        self.config = self.folder / "server.properties"

    def pid(self) -> int | None:
        """Process id, if it runs and is really ours (ids are used again)."""
        try:
            pid = int(self.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.config).encode() in command else None

    def start(
        self, port: int, keep: bool, bench: bool, die_with_us: bool, lock: Lock | None = None
    ) -> tuple[subprocess.Popen[bytes], int]:
        """Start the broker and wait until it serves. Returns its process and its port."""
        if self.pid() is not None:
            raise Failed(
                f"already running as process {self.pid()}; stop it first: kafka.py stop --name {self.folder.name}"
            )
        java = tool("java", "default-jre-headless")
        classpath = f"{jars()}/*"
        listeners = 3 if lock is not None and lock.tls is not None else 1
        if port:
            controller_port = free_port()
        else:
            # All in one row: nobody has bound any of them yet, so that the second question could bring the same.
            port = free_port(listeners + 1)
            controller_port = port + listeners
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as taken:
                raise Failed(f"port {port} is taken; choose another with --port, or --port 0") from taken
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.folder / "data"
        template = string.Template((HERE / "server.properties.template").read_text())
        text = template.substitute(port=port, controller_port=controller_port, data=data)
        self.config.touch(mode=0o600)
        self.config.write_text(text if lock is None else _locked(text, lock.properties(port)))
        base = [
            java,
            *(BENCH_HEAP if bench else SMALL_HEAP),
            *JVM,
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            f"-Dkafka.log.file={self.log}",
            "-cp",
            classpath,
        ]
        if not data.is_dir():
            self._format(base, data, lock)
        with (self.folder / "console.log").open("ab") as console:
            process = subprocess.Popen(
                [*base, "kafka.Kafka", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                # Away from the terminal: Ctrl-C comes to us, and we stop it in order.
                start_new_session=True,
                # This program has one thread, so nothing can hold a lock while the child is made.
                preexec_fn=_die_with_parent if die_with_us else None,  # noqa: PLW1509
            )
        self.pid_file.write_text(str(process.pid))
        end = time.monotonic() + START_S
        try:
            while not serves(port, lock.master if lock else None):
                if process.poll() is not None:
                    raise Failed(f"the broker ended at its start; see {self.log} and {self.folder / 'console.log'}")
                if time.monotonic() > end:
                    raise Failed(f"the broker does not serve after {START_S:.0f} s; see {self.log}")
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise
        return process, port

    def _format(self, base: list[str], data: Path, users: Lock | None) -> None:
        """Make the storage of a new broker.

        What the tool writes depends on the version and the template alone, and it is a JVM's start, a third of ours: so
        it is kept, and copied for the next instance, which then has the same cluster id on storage of its own.
        """
        if users is not None:  # they are written into it
            self._format_anew(base, users.scram())
            return
        template = (HERE / "server.properties.template").read_bytes()
        kept = HOME / f"formatted-{hashlib.sha256(jars().name.encode() + template).hexdigest()[:12]}"
        with lock(HOME / "formatted.lock"):
            if kept.is_dir():
                shutil.copytree(kept, data)
                return
            self._format_anew(base, [])
            part = HOME / f"{kept.name}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(data, part)
            part.rename(kept)

    def _format_anew(self, base: list[str], more: list[str]) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # "--cluster-id=ID": an id may begin with a dash, and would be read as an option.
        arguments = ["format", f"--cluster-id={cluster_id}", "-c", str(self.config), *more]
        # In a file, which the tool reads: passwords are among them, and a command line can be read by anybody here.
        told = self.folder / "format.arguments"
        told.touch(mode=0o600)
        try:
            told.write_text("\n".join(arguments))
            command = [*base, "kafka.tools.StorageTool", f"@{told}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        finally:
            told.unlink()
        if done.returncode != 0:
            raise Failed(f"the storage could not be formatted: {(done.stderr or done.stdout).strip().splitlines()[-1]}")

    def stop(self, kill: bool = False) -> bool:
        """End the broker; False if none runs. In order within 30 s, by force after that (or at once with ``kill``)."""
        pid = self.pid()
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
        end = time.monotonic() + STOP_S
        forced = kill
        while self._alive(pid):
            if time.monotonic() > end:
                if forced:
                    raise Failed(f"process {pid} does not end")
                os.kill(pid, signal.SIGKILL)
                forced, end = True, time.monotonic() + STOP_S
            time.sleep(0.05)
        self.pid_file.unlink(missing_ok=True)
        return True

    def _alive(self, pid: int) -> bool:
        """Whether a process that was ours a moment ago still exists (its command line goes before it does)."""
        try:
            return os.waitpid(pid, os.WNOHANG)[0] != pid  # our own child: nobody else would collect it
        except ChildProcessError:
            pass
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"


def _locked(open_text: str, properties: dict[str, str]) -> str:
    """The template's text with these properties, each in place of the line that has it."""
    controller = re.search(r"CONTROLLER://\S+$", open_text, re.MULTILINE)
    assert controller is not None, "the template has a controller's listener"  # noqa: S101
    properties = {"listeners": f"{properties['advertised.listeners']},{controller[0]}", **properties}
    kept = [line for line in open_text.splitlines() if line.partition("=")[0] not in properties]
    return "\n".join([*kept, *(f"{name}={value}" for name, value in properties.items()), ""])


def _die_with_parent() -> None:
    """Linux: the broker gets SIGTERM if this process is killed, so that none is left behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def lock_of(args: argparse.Namespace) -> Lock | None:
    """What the command line says of who may log in."""
    if args.users is None:
        if args.tls is not None:
            raise Failed("--tls goes with --users: without rules of who may do what, a certificate is worth nothing")
        return None
    if args.keep:
        raise Failed("--users are written into new data: it does not go with --keep")
    return Lock(read_users(args.users), None if args.tls is None else args.tls.resolve())


def run(instance: Instance, args: argparse.Namespace) -> int:
    """Foreground: until Ctrl-C, SIGTERM, or the broker's own end."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # Both by hand: started in the background of a script, Python finds SIGINT ignored and would leave it so.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        process, port = instance.start(args.port, args.keep, args.bench, True, lock_of(args))
        print(f"ready: Apache Kafka on {HOST}:{port} (log: {instance.log}); Ctrl-C stops it", flush=True)
        code = process.wait()
        raise Failed(f"the broker ended by itself with code {code}; see {instance.log}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        instance.stop()
        print("stopped", flush=True)
        return 0


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="kafka.py", description="A real Apache Kafka on loopback.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, port in (("run", 9092), ("start", 0)):
        command = commands.add_parser(name)
        command.add_argument("--port", type=int, default=port, help="0 takes a free one (default: %(default)s)")
        command.add_argument("--keep", action="store_true", help="keep the data of the last run")
        command.add_argument("--bench", action="store_true", help="1 GiB, for measurements")
        command.add_argument("--users", type=Path, help="lock it: a file of name=password, the first may do everything")
        command.add_argument("--tls", type=Path, help="mutual TLS at the next port: a folder with ca.pem, broker.pem")
        command.add_argument("--name", default="default", help="several may run side by side")
    stop = commands.add_parser("stop")
    stop.add_argument("--kill", action="store_true", help="SIGKILL: as a crash")
    stop.add_argument("--name", default="default")
    commands.add_parser("jars")
    args = parser.parse_args()
    try:
        if args.command == "jars":
            print(jars())
            return 0
        instance = Instance(args.name)
        if args.command == "run":
            return run(instance, args)
        if args.command == "start":
            _, port = instance.start(args.port, args.keep, args.bench, False, lock_of(args))
            print(f"{HOST}:{port}")
            return 0
        print("stopped" if instance.stop(args.kill) else "not running", file=sys.stderr)
        return 0
    except Failed as failed:
        print(f"kafka.py: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
