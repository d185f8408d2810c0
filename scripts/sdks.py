"""Make clients of openapi.yaml in five languages, compile them strictly, and run one scenario in each.

For each language: its example of docs/examples is copied to build/sdks, its generator makes the client there, both are
compiled, and the scenario runs against the service on a Postgres of its own. The scenarios have to print the same
lines. Exits with 1 if anything fails; a toolchain that is not here is a failure of its language.
"""

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import httpx

from scripts.postgres import Postgres

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
BUILD = ROOT / "build" / "sdks"
DATABASE = "sdks"
STEP_SECONDS_MAX = 1800
RUN_SECONDS_MAX = 120
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
KEPT = {"node_modules", "target"}  # what a package manager or a compiler made, and only it can tell is stale
STEPS = (
    "open accounts", "post", "replay", "hold", "capture", "refuse", "large amount", "retry", "statement", "feed",
    "long poll",
)  # fmt: skip


@dataclass(frozen=True)
class Language:
    """How a team of this language would do it: every command runs in a copy of its example."""

    name: str
    generator: str
    version: Callable[[], str]
    needs: tuple[str, ...]
    client: str  # where the generator writes, and which of its files are code
    suffix: str
    generate: tuple[str, ...]
    compile: tuple[str, ...]
    run: str

    @property
    def example(self) -> Path:
        return EXAMPLES / self.name

    @property
    def folder(self) -> Path:
        return BUILD / self.name


@dataclass
class Result:
    language: Language
    files: int = 0
    lines: int = 0
    warnings: int = 0
    compiled: str = "no"
    ran: str = "no"
    printed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def _npm_version() -> str:
    packages = json.loads((EXAMPLES / "typescript" / "package-lock.json").read_text())["packages"]
    return packages["node_modules/openapi-typescript"]["version"]


def _go_version() -> str:
    return _find(r"oapi-codegen/oapi-codegen/v2 v(\S+)", EXAMPLES / "go" / "go.mod")


def _java_version() -> str:
    return _find(r"<openapi-generator.version>(.*?)<", EXAMPLES / "java" / "pom.xml")


def _rust_version() -> str:
    manifest = tomllib.loads((EXAMPLES / "rust" / "Cargo.toml").read_text())
    return manifest["package"]["metadata"]["openapi-generator"]["version"]


def _find(pattern: str, file: Path) -> str:
    (found,) = re.findall(pattern, file.read_text())
    return found


LANGUAGES = {
    language.name: language
    for language in (
        Language(
            name="python",
            generator="openapi-python-client",
            version=lambda: version("openapi-python-client"),
            needs=("openapi-python-client", "mypy"),
            client="tallystick",
            suffix=".py",
            generate=(
                "openapi-python-client generate --path ../../../openapi.yaml --meta none"
                " --output-path tallystick --overwrite --fail-on-warning",
            ),
            compile=("mypy scenario.py tallystick",),
            run="python scenario.py",
        ),
        Language(
            name="typescript",
            generator="openapi-typescript",
            version=_npm_version,
            needs=("node", "npm"),
            client="tallystick",
            suffix=".ts",
            generate=("npm ci --no-audit --no-fund", "npm run --silent generate"),
            compile=("npx tsc",),
            run="node build/scenario.js",
        ),
        Language(
            name="go",
            generator="oapi-codegen",
            version=_go_version,
            needs=("go",),
            client="tallystick",
            suffix=".go",
            generate=("go generate ./...",),
            compile=("go vet ./...", "go build -o scenario ."),
            run="./scenario",
        ),
        Language(
            name="java",
            generator="openapi-generator `native`",
            version=_java_version,
            needs=("java", "javac", "mvn"),
            client="tallystick/src/main",
            suffix=".java",
            generate=("mvn -B -q -ntp generate-sources",),
            compile=("mvn -B -ntp package",),
            run="java -cp 'target/classes:target/dependency/*' Scenario",
        ),
        Language(
            name="rust",
            generator="openapi-generator `rust`",
            version=_rust_version,
            needs=("cargo", "cargo-clippy", "java", "mvn"),
            client="tallystick/src",
            suffix=".rs",
            generate=(
                "mvn -B -q -ntp dependency:copy -DoutputDirectory=target/generator -Dmdep.stripVersion"
                f" -Dartifact=org.openapitools:openapi-generator-cli:{_rust_version()}",
                "java -jar target/generator/openapi-generator-cli.jar generate -c openapi-generator.yaml",
            ),
            compile=("cargo clippy --quiet --locked -- -D warnings", "cargo build --quiet --locked"),
            run="target/debug/tallystick-scenario",
        ),
    )
}


def main() -> None:
    languages = _parse_arguments()
    results = [Result(language) for language in languages]
    for result in results:
        _prepare(result)
    ready = [result for result in results if not result.faults]
    if ready:
        _run_all(ready)
    _compare(ready)
    for result in results:
        for fault in result.faults:
            print(f"\n{result.language.name}: {fault}", flush=True)
    print(f"\n{render_table(results)}")
    failed = [result.language.name for result in results if result.faults]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def _parse_arguments() -> list[Language]:
    parser = argparse.ArgumentParser(
        prog="scripts/sdks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help=f"of {', '.join(LANGUAGES)}; all by default")
    parser.add_argument("--only", nargs="+", default=[], metavar="LANGUAGE", help="the same, said as an option")
    arguments = parser.parse_args()
    names = arguments.languages + arguments.only or list(LANGUAGES)
    if unknown := [name for name in names if name not in LANGUAGES]:
        parser.error(f"no such language: {', '.join(unknown)}")
    return [LANGUAGES[name] for name in dict.fromkeys(names)]


def _prepare(result: Result) -> None:
    """Generate and compile; the first command that fails is the language's fault."""
    language = result.language
    environment = _environment()
    missing = [program for program in language.needs if shutil.which(program, path=environment["PATH"]) is None]
    if missing:
        result.faults.append(f"not on this machine: {', '.join(missing)}")
        return
    _copy_example(language)
    for kind, commands in (("generate", language.generate), ("compile", language.compile)):
        began = time.monotonic()
        for command in commands:
            print(f"── {language.name}: {command}", flush=True)
            done = _run(command, language.folder, environment, STEP_SECONDS_MAX)
            if done.returncode:
                result.faults.append(f"`{command}` failed:\n{done.stdout[-6000:]}")
                return
            if kind == "compile":
                result.warnings += len(re.findall(r"(?im)^(?:.*\[warning\].*|.*\bwarning:.*)$", done.stdout))
        result.seconds[kind] = time.monotonic() - began
        if kind == "generate":
            result.files, result.lines = _count(language)
    result.compiled = "yes"


def _environment() -> dict[str, str]:
    """Programs of our own environment come first; the client of another deployment is nobody's business here."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
    # One crate after the other: a compiler for each core is more than a small machine has memory for.
    return clean | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CARGO_BUILD_JOBS": os.environ.get("CARGO_BUILD_JOBS", "1"),
        "NO_COLOR": "1",
    }


def _copy_example(language: Language) -> None:
    language.folder.mkdir(parents=True, exist_ok=True)
    for path in language.folder.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."],
        cwd=language.example, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        (language.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(language.example / name, language.folder / name)


def _run(command: str, folder: Path, environment: dict[str, str], seconds_max: int) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, shell=True, cwd=folder, env=environment, check=False, text=True, timeout=seconds_max,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, f"It took longer than {seconds_max} seconds.")


def _count(language: Language) -> tuple[int, int]:
    files = list((language.folder / language.client).rglob(f"*{language.suffix}"))
    return len(files), sum(len(file.read_text().splitlines()) for file in files)


def _run_all(results: list[Result]) -> None:
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder,
        Postgres(Path(folder) / "postgres", durable=False) as postgres,
        _service(postgres, Path(folder) / "service.log") as (url, key, log),
    ):
        for result in results:
            language = result.language
            print(f"── {language.name}: {language.run}", flush=True)
            scope = {"TALLYSTICK_URL": url, "TALLYSTICK_KEY": key, "TALLYSTICK_LEDGER": language.name}
            began = time.monotonic()
            done = _run(language.run, language.folder, _environment() | scope, RUN_SECONDS_MAX)
            result.seconds["run"] = time.monotonic() - began
            result.printed = done.stdout.splitlines()
            if done.returncode:
                result.faults.append(f"`{language.run}` ended with {done.returncode}:\n{done.stdout[-6000:]}")
            path = f"/v1/ledgers/{language.name}/transactions"
            if [f"lost 201 {path}", f"repeated {path}"] != [
                line for line in log.read_text().splitlines() if path in line
            ]:
                result.faults.append("the post whose answer was lost was not repeated exactly once with its key")


@contextlib.contextmanager
def _service(postgres: Postgres, log: Path) -> Iterator[tuple[str, str, Path]]:
    postgres.create_database(DATABASE)
    key = secrets.token_hex(16)
    environment = _environment() | {
        "DATABASE_URL": postgres.url(DATABASE),
        "API_KEY": key,
        "LOG_LEVEL": "WARNING",
        "LOG_FORMAT": "json",
        "ALLOW_UNSAFE_DATABASE": "true",
    }
    subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environment, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        command = [sys.executable, "-m", "scripts.sdks_service", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, process, log)
        yield url, key, log
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    sys.exit(f"The service did not start:\n{log.read_text()}")


def _compare(results: list[Result]) -> None:
    """Every scenario prints what was expected, line by line, and so what every other one prints."""
    expected = (EXAMPLES / "expected.txt").read_text().splitlines()
    for result in results:
        if result.faults:
            continue
        if expected == result.printed:
            result.ran = "yes"
        else:
            said = "\n".join(result.printed)
            result.faults.append(f"the scenario printed something else than docs/examples/expected.txt:\n{said}")


def render_table(results: list[Result]) -> str:
    heads = "| language | generator | files | lines | compiled by | compiles | warnings | runs | seconds |"
    rows = [heads, "|---|---|---|---|---|---|---|---|---|"]
    for result in results:
        language = result.language
        seconds = " + ".join(f"{result.seconds.get(kind, 0):.0f}" for kind in ("generate", "compile", "run"))
        compiled_by = ", ".join(f"`{command}`" for command in language.compile)
        rows.append(
            f"| {language.name} | {language.generator} {language.version()} | {result.files} | {result.lines}"
            f" | {compiled_by} | {result.compiled} | {result.warnings} | {result.ran} | {seconds} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
