"""Damaged, hostile and extreme inputs of every kind through both programs, and kills: what went wrong, counted.

    python benchmarks/reliability/mutations.py [KIND...] [--share 1.0] [--kills 50] [--seed 0]
    python benchmarks/reliability/mutations.py --only KIND:NUMBER        # one again, shown, its files kept

A process that has imported everything forks for each input, on one core, with limits of time, memory and file size. A hang is more than 15 s of
the processor's time, or of waiting without computing. Resumable, kind by kind: benchmarks/results/mutations.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import server
import tqdm
from bases import NETWORK, SIDE, make_bases
from checks import FAULTS, SECRET, faults_of, tree_of
from kills import kill_all
from kinds import COUNTS, KINDS, Case
from programs import PROGRAMS, import_all, run_deploy
from tiny.provenance import commit

from pipeline.scripted import exported_once, one_thread
from practise_deploy.run import write_atomically

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "benchmarks" / "results" / "mutations.json"
KILLS = "kills"
Row = dict[str, Any]


def prepare(place: Path) -> Path:
    """The bases, and the folder outside; everything that the programs import is imported."""
    bases = place / "bases"
    bases.mkdir()
    make_bases(bases, lambda *arguments: _must(arguments, bases))
    warm = place / "warm"
    shutil.copytree(bases, warm)
    import_all()
    tqdm.tqdm.monitor_interval = 0  # its thread would not be there in a fork
    here = os.getcwd()
    os.chdir(warm)
    for words in (
        ("inspect", NETWORK, "--input-size", str(SIDE), "--quiet"),
        ("export", "--out", "run", "--fresh", "--quiet"),
    ):
        try:
            run_deploy(list(words))
        except SystemExit as end:
            assert not end.code, words
    os.chdir(here)
    gc.collect()
    gc.freeze()  # or every fork copies what its collector only looks at
    assert threading.active_count() == 1, threading.enumerate()  # or a fork could inherit a lock that nobody opens
    return bases


def _must(arguments: tuple[str, ...], bases: Path) -> None:
    ended = server.run(run_deploy, arguments, bases)
    if ended.code:
        sys.exit(f"{' '.join(arguments)} ended with {ended.code}:\n{ended.err}")


def lay_out(bases: Path, place: Path) -> Path:
    """A fresh copy of the bases in a place, and beside it the folder outside; gives the copy."""
    shutil.rmtree(place, ignore_errors=True)
    here, outside = place / "one" / "here", place / "one" / "outside"
    shutil.copytree(bases, here)
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    (outside / "weights.bin").write_bytes((here / "onnx" / "weights.bin").read_bytes() + SECRET.encode())
    shutil.copy(here / "photos" / "00.png", outside / "photo.png")
    return here


def try_one(
    kind: str, number: int, seed: int, bases: Path, place: Path
) -> tuple[Case, server.Ended, list[tuple[str, str]]]:
    """Draw one input, and run its command; what is wrong with how it ended."""
    for again in range(10):
        here, rng = lay_out(bases, place), random.Random(f"{seed}:{kind}:{number}:{again}")
        try:
            case = KINDS[kind](here, rng)
            break
        except (
            OSError,
            ValueError,
            RecursionError,
            MemoryError,
        ) as error:  # what a library refuses to write is drawn again
            print(f"{kind}:{number} is drawn again: {error}"[:200], flush=True)
    before, watched = tree_of(here), server.Watched(here.parent / "outside")
    ended = server.run(PROGRAMS[case.program], case.arguments, here, watched)
    watched.close()
    return case, ended, faults_of(case, ended, here, before)


def try_kind(kind: str, given: argparse.Namespace, bases: Path, place: Path) -> Row:
    """All inputs of a kind; what one that failed left is kept."""
    count = max(1, round(COUNTS[kind] * given.share))
    codes, faults, failures = Counter[str](), Counter[str](), list[Row]()
    slow, most_cpu, began = 0, 0.0, time.monotonic()
    for number in range(count):
        case, ended, found = try_one(kind, number, given.seed, bases, place)
        codes[str(ended.code)] += 1
        faults.update({name for name, _ in found})
        slow, most_cpu = slow + (ended.wall_s > server.LIMIT_S), max(most_cpu, ended.cpu_s)
        if found:
            shutil.copytree(
                place / "one", given.keep / f"{kind}-{number}", symlinks=True, ignore=_no_pipes, dirs_exist_ok=True
            )
        for name, words in found:
            told = {
                "number": f"{kind}:{number}",
                "fault": name,
                "words": words,
                "what": case.what,
                "command": _words(case),
            }
            failures.append({key: value.replace(str(place), "PLACE") for key, value in told.items()})
            print("\n    ".join(failures[-1].values())[:1000], flush=True)
        if number % 50 == 49:
            print(f"{kind}: {number + 1} of {count} in {time.monotonic() - began:.0f} s", flush=True)
    return {
        "inputs": count,
        "commit": commit(),
        "exit_codes": dict(sorted(codes.items())),
        "faults": {name: faults[name] for name in FAULTS},
        "longest_processor_s": round(most_cpu, 2),
        "over_15_s_of_wall_clock": slow,
        "failures": failures,
    }


def _no_pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_fifo()]


def _words(case: Case) -> str:
    return " ".join(ascii(each)[1:-1] for each in (case.program, *case.arguments))


def main() -> None:
    given = _parser().parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (server.MEMORY, server.MEMORY))  # twice damaged arrays may ask for much
    with tempfile.TemporaryDirectory(prefix="mutations-") as name, one_thread(), exported_once():
        place = Path(name)
        bases = prepare(place)
        if given.only:
            kind, _, number = given.only.partition(":")
            _show(*try_one(kind, int(number), given.seed, bases, given.keep))
            return
        for kind in given.kinds or (*KINDS, KILLS):
            if kind == KILLS:
                row = kill_all(place / kind, given.kills, given.seed) | {"commit": commit()}
            else:
                row = try_kind(kind, given, bases, place / "place")
            _keep(kind, row, given)


def _show(case: Case, ended: server.Ended, found: list[tuple[str, str]]) -> None:
    print(
        f"{case.what}\n{_words(case)}\nexit code {ended.code}, {ended.cpu_s:.2f} s of processor time, {ended.wall_s:.1f} s\n"
    )
    print(f"{ended.out}\n{ended.err}\nopened outside: {ended.opened}\nwrong: {found}")


def _keep(kind: str, row: Row, given: argparse.Namespace) -> None:
    told = json.loads(given.output.read_text()) if given.output.is_file() else {"schema": 1, "kinds": {}}
    told |= {"seed": given.seed, "limit_s": server.LIMIT_S}
    told["kinds"][kind] = row
    told["inputs"] = sum(one.get("inputs", 0) for one in told["kinds"].values())
    write_atomically(given.output, json.dumps(told, indent=1) + "\n")
    print(f"{kind}: {json.dumps({key: value for key, value in row.items() if key != 'failures'})}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "kinds",
        nargs="*",
        choices=[[], *KINDS, KILLS],
        metavar="KIND",
        help=f"{', '.join(KINDS)}, {KILLS}; default: all",
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the number of inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kills", type=int, default=50, help="so many kills inside writes and so many at random moments"
    )
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one input again")
    parser.add_argument(
        "--keep", type=Path, default=Path("mutation"), help="where --only leaves its files, and what failed is kept"
    )
    parser.add_argument("--output", type=Path, default=PATH)
    return parser


if __name__ == "__main__":
    main()
