"""Writes the results of `run.py` as `results.json`, `tables.md` and `mismatch.png`.

python benchmarks/mismatch/report.py --recordings ESC-10 --work WORK --set test -o benchmarks/mismatch/results
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import arms
import numpy as np
import torch
from detection import auroc, number, reliability, with_off_screen
from figures import draw
from pairs import SEED
from scores import Scored, add_scores, fitting, read
from world import SETS, world

from evacap_cli.data.store import Store
from evacap_cli.metrics.statistics import Statistic
from evacap_cli.report.paper_results import ROWS, SHUFFLED
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.world import World

PAPER = {
    "audio-only": "audio", "concat": "avcap", "cross-attention": "evacap-no-gate",
    "gate-sms-0": "evacap-no-sms-no-entropy",
    "gate-sms-0.05": "evacap-no-entropy", "entropy-sms-0": "evacap-no-sms", "entropy-sms-0.05": "evacap",
}  # fmt: skip
"""Presets of this package and the corresponding rows of the paper."""
TABLE_2 = {"entropy-sms-0": (0.650, 0.172), "entropy-sms-0.05": (0.649, 0.170), "entropy-sms-0.5": (0.631, 0.170),
           "entropy-sms-1": (0.622, 0.166)}  # fmt: skip
"""The paper's CIDEr and SPICE."""
SHARES = (0.0, 0.05, 0.5, 1.0)
PLAIN = ("BLEU_1", "BLEU_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE", "SPIDEr", "recall", "source")
Cell = tuple[float, float, float]


def thorough() -> set[tuple[str, str]]:
    """The (arm, condition) pairs that are scored with METEOR, SPICE and SPIDEr, which are slow."""
    own = {(arm, "own") for arm in (*PAPER, *TABLE_2, *arms.OURS)}
    shuffled = {(arm, "any") for arm in ("concat", "entropy-sms-0.05", "audio-only", *arms.OURS)}
    return own | shuffled | {(arm, "unlike") for arm in ("audio-only", *arms.OURS)}


def sweep(scored: Scored, arm: str, clips: int) -> None:
    """Adds the conditions `shuffled P`: a share P of the clips has the picture of another clip."""
    pairing = Pairing.draw(clips, SEED)
    for share in SHARES:
        touched = pairing.touched(share)
        for seed in scored.seeds:
            own, other = (scored.statistics[arm, seed, name] for name in ("own", "any"))
            scored.statistics[arm, seed, f"shuffled {share:g}"] = {
                name: Statistic(np.where(touched[:, None], other[name].rows, own[name].rows), own[name].value)
                for name in own
                if name in other
            }


def measured(scored: Scored, store: Store, ours: World) -> dict[str, Any]:
    """All numbers of the report as (mean over seeds, low, high)."""
    found: dict[str, Any] = {"values": {}, "kept": {}, "auroc": {}, "gate": {}}
    known = sorted({arm for arm, _ in scored.said})
    for arm in known:
        sweep(scored, arm, len(fitting(store)))
    for arm, seed, condition in scored.statistics:
        if seed == scored.seeds[0]:
            names = scored.statistics[arm, seed, condition]
            found["values"].setdefault(arm, {})[condition] = {
                n: scored.mean(arm, condition, n) for n in names
            }
    ungated = [arm for arm in ("cross-attention", "concat") if arm in known]
    best = max(ungated, key=lambda arm: found["values"][arm]["own"]["CIDEr"][0])
    found["best ungated"] = best
    for arm in known:
        kept = found["kept"].setdefault(arm, {})
        for condition in ("unlike", "any", "half", "black", "frozen", *(f"shuffled {s:g}" for s in SHARES)):
            names = [
                n
                for n in ("CIDEr", "SPIDEr", "recall")
                if scored.has(arm, condition, n) and scored.has("audio-only", condition, n)
            ]
            kept[f"{condition}, of audio-only"] = {
                n: scored.kept(arm, condition, "audio-only", condition, n) for n in names
            }
        names = [n for n in ("CIDEr", "SPIDEr", "recall", "source") if scored.has(arm, "own", n)]
        for other in dict.fromkeys((best, "cross-attention", "evidence")):
            if other in known:
                both = [n for n in names if scored.has(other, "own", n)]
                kept[f"own, of {other}"] = {n: scored.kept(arm, "own", other, "own", n) for n in both}
        kept["shuffled 1, of own"] = {
            n: scored.kept(arm, "shuffled 1", arm, "own", n) for n in names if scored.has(arm, "any", n)
        }
    print_report(scored, store, ours, found)
    return found


def print_report(scored: Scored, store: Store, ours: World, found: dict[str, Any]) -> None:
    """Adds AUROC and gates by kind of mismatch, and reliability."""
    kinds = np.array([store.extra(i)["kind"] for i in range(len(store))])
    rows, dubbed = fitting(store), np.flatnonzero(kinds == "dubbed")
    numbers: dict[tuple[str, str], Any] = {}
    for arm in sorted({arm for arm, _ in scored.said}):
        said = scored.said[arm, scored.seeds[0]]["own"]
        if "entropy" in said:
            numbers[arm, "entropy"] = number("entropy", sign=-1.0)
        if "gate" in said and "evidence" not in said:
            numbers[arm, "gate"] = number("gate")
        if "evidence" in said and arm in arms.OURS:
            numbers[arm, "evidence"] = number("evidence")
            cues = ("cosine", "best", "matcher", "tags")
            numbers |= {(arm, cue): number("cues", i) for i, cue in enumerate(cues)}
    groups = {"unlike": (rows, "unlike", None), "any": (rows, "any", None),
              "off-screen": (with_off_screen(store, ours), "unlike", None),
              "dubbed": (rows, "own", dubbed)}  # fmt: skip
    for (arm, name), read_number in numbers.items():
        found["auroc"].setdefault(arm, {})[name] = {
            label: auroc(scored, arm, read_number, own, against, wrong)
            for label, (own, against, wrong) in groups.items()
        }
    for arm, seed in scored.said:
        told = scored.said[arm, seed]
        if "gate" not in told["own"]:
            continue
        gates = found["gate"].setdefault(arm, {})
        for kind in dict.fromkeys(kinds):
            gates.setdefault(f"own, {kind}", []).append(
                float(np.mean(np.array(told["own"]["gate"])[kinds == kind]))
            )
        for condition, one in told.items():
            if condition != "own" and "gate" in one:
                gates.setdefault(condition, []).append(float(np.mean(one["gate"])))
    for gates in found["gate"].values():
        for name, by_seed in gates.items():
            gates[name] = float(np.mean(by_seed))
    found["reliability"] = {a: reliability(scored, a, np.flatnonzero(kinds != "dubbed")) for a in arms.OURS
                            if (a, scored.seeds[0]) in scored.said}  # fmt: skip


def cell(value: Cell | None, digits: int = 3, interval: bool = True) -> str:
    if value is None:
        return ""
    mean, low, high = value
    return f"{mean:.{digits}f}" + (f" ({low:.{digits}f}-{high:.{digits}f})" if interval else "")


def share(value: Cell | None) -> str:
    return "" if value is None else f"{value[0]:.1%} ({value[1] * 100:.1f}-{value[2] * 100:.1f})"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


LEGEND = """Arms: `concat` is AVCap's fusion; `cross-attention` A + F without a gate (w/o G); `gate` an ordinary
learned gate; `entropy` the paper's, with SMS at what its name says, or 0.05: `steep` starts with w_g -8 and b_g 4,
`reversed` with 8 and -4, `per-head` has a gate a head, `sharp` a learned factor on the scores. `evidence` has two
decoders, `evidence-frozen` keeps audio-only's for both paths, `evidence-one-decoder` trains one for both. Pictures:
`own`; `unlike`, another clip's in which nothing is heard or could sound that is heard here; `any`, any other
clip's; `half`, the second half from an unlike clip; `frozen`, the first frame throughout; `black`. Without a
further word, clips are those whose picture fits in full. `recall`: of the sounds that are heard, those that are
named; `precision`: of the sounds that are named, those that are heard; `source`: of the visible sounds whose source
only the picture tells, those with the right one."""
SHOWN = ("own", "unlike", "any", "half", "frozen", "black")
KEPT = ("CIDEr", "SPIDEr", "recall")


class Pages:
    """The tables in Markdown."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found, self.values = found, found["values"]
        self.arms = [arm for arm in self.values if arm != "words"]
        self.parts: list[str] = []

    def at(self, arm: str, condition: str, metric: str) -> Cell | None:
        return self.values.get(arm, {}).get(condition, {}).get(metric)

    def plain(self, arm: str, condition: str, sure: tuple[str, ...] = ("CIDEr",)) -> list[str]:
        """All metrics of an arm. Those in `sure` have intervals."""
        return [cell(self.at(arm, condition, metric), 3, metric in sure) for metric in PLAIN]

    def section(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        if rows:
            self.parts.append(f"## {title}\n\n" + table(header, rows))

    def text(self) -> str:
        self.paper()
        self.conditions()
        self.gates()
        return "\n".join(self.parts)

    def paper(self) -> None:
        """The paper's Tables 1, 2, 3 and 4 next to its published numbers."""
        rows = [
            [arm, *self.plain(arm, "own", ("CIDEr", "recall", "source")), ROWS[row][0],
             f"{ROWS[row][1][6]:.3f}", f"{ROWS[row][1][7]:.3f}"]
            for arm, row in PAPER.items() if arm in self.values
        ]  # fmt: skip
        header = ["arm", *PLAIN, "paper's row", "CIDEr", "SPICE"]
        self.section("Tables 1 and 4: clips whose picture fits", header, rows)
        rows = [
            [arm, *self.plain(arm, "own"), *(f"{value:.3f}" for value in printed)]
            for arm, printed in TABLE_2.items()
            if arm in self.values
        ]
        self.section("Table 2: SMS in training", ["arm", *PLAIN, "paper's CIDEr", "SPICE"], rows)
        rows = []
        for arm in ("concat", "entropy-sms-0.05", "audio-only", *arms.OURS):
            preset = {"concat": "avcap", "entropy-sms-0.05": "evacap"}.get(arm, "")
            for share_of in SHARES if arm in self.values else ():
                printed = SHUFFLED.get(preset, {}).get(share_of)
                beside = ["", ""] if printed is None else [f"{printed[6]:.3f}", f"{printed[7]:.3f}"]
                rows.append([arm, f"{share_of:.0%}", *self.plain(arm, f"shuffled {share_of:g}"), *beside])
        header = ["arm", "shuffled", *PLAIN, "paper's CIDEr", "SPICE"]
        self.section("Table 3: pictures of any other clip", header, rows)

    def conditions(self) -> None:
        """The effect of the picture by condition."""
        for metric in ("CIDEr", "recall", "precision", "source"):
            rows = [[arm, *(cell(self.at(arm, c, metric)) for c in SHOWN)] for arm in self.arms]
            self.section(f"{metric} by what the picture is", ["arm", *SHOWN], rows)
        kept, places = self.found["kept"], ("unlike", "any")
        rows = [
            [arm, *(share(kept[arm][f"{c}, of audio-only"].get(m)) for c in places for m in KEPT),
             share(kept[arm]["shuffled 1, of own"].get("CIDEr"))]
            for arm in self.arms
        ]  # fmt: skip
        header = ["arm", *(f"{c}: {m}" for c in places for m in KEPT), "any: CIDEr, of its own"]
        self.section("Kept of audio-only's, with wrong pictures", header, rows)
        best = self.found["best ungated"]
        for other in dict.fromkeys((best, "cross-attention", "evidence")):
            name, metrics = f"own, of {other}", (*KEPT, "source")
            rows = [
                [arm, *(share(kept[arm][name].get(m)) for m in metrics)]
                for arm in self.arms
                if name in kept[arm]
            ]
            note = ", the best ungated" if other == best else ""
            self.section(f"Kept of what {other} has{note}, with own pictures", ["arm", *metrics], rows)
        kinds = ("off-screen", "dubbed", "distractor")
        each = [(kind, metric) for kind in kinds for metric in ("CIDEr", "recall")]
        rows = [[arm, *(cell(self.at(arm, f"own, {k}", m)) for k, m in each)] for arm in self.arms]
        self.section(
            "Clips of other kinds, with their own pictures", ["arm", *(f"{k}: {m}" for k, m in each)], rows
        )
        extra = [f"{c}, {how}" for how in ("open", "windows") for c in ("own", "unlike", "any", "half")]
        rows = [
            [arm, *(cell(self.at(arm, c, "CIDEr")) for c in extra)] for arm in arms.OURS if arm in self.values
        ]
        self.section("CIDEr, the switch held open, and a decision for each half", ["arm", *extra], rows)

    def gates(self) -> None:
        labels = ("unlike", "any", "off-screen", "dubbed")
        rows = [
            [arm, name, *(cell(row[label]) for label in labels)]
            for arm, told in self.found["auroc"].items()
            for name, row in told.items()
        ]
        self.section("AUROC: clips' own pictures against others", ["arm", "number", *labels], rows)
        kinds = [f"own, {kind}" for kind in ("matched", "distractor", "off-screen", "dubbed")]
        where = (*kinds, *SHOWN[1:])
        rows = [
            [arm, *(f"{gates[w]:.3f}" if w in gates else "" for w in where)]
            for arm, gates in self.found["gate"].items()
        ]
        self.section("Mean gate", ["arm", *where], rows)
        rows = [
            [arm, f"{row['brier']:.4f}", ", ".join(f"{a:.2f} -> {b:.2f} ({n})" for a, b, n in row["curve"])]
            for arm, row in self.found["reliability"].items()
        ]
        self.section("Reliability", ["arm", "Brier", "said -> true (pairs)"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--set", default="test", choices=("val", "test"))
    parser.add_argument("--seeds", default=",".join(map(str, arms.SEEDS)))
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    store, ours = Store(args.work / args.set), world(args.set, args.recordings)
    scored = read(args.work, args.set, [int(seed) for seed in args.seeds.split(",")])
    add_scores(scored, store, ours, thorough())
    found = measured(scored, store, ours)
    towers = json.loads((args.work / "towers.json").read_text())
    found["about"] = {
        "set": args.set, "clips": len(store), "fitting": len(fitting(store)), "seeds": scored.seeds,
        "train": SETS["train"].clips, "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "date": date.today().isoformat(), "seconds": json.loads((args.work / "times.json").read_text()),
        **({"towers": "with masked patches"} if towers.get("masked") else {}),
        "towers on val": {name: value for name, value in towers.items() if name != "by sound"},
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    about = ", ".join(f"{k} {v}" for k, v in found["about"].items() if isinstance(v, int | str | list))
    means = "Means over seeds, 95 % over draws of clips and seeds in brackets."
    head = f"# Mismatch: what was measured\n\n{about}. {means}\n\n{LEGEND}"
    (args.out / "tables.md").write_text(f"{head}\n\n{Pages(found).text()}", "utf-8")
    draw(found, scored, fitting(store), args.out / "mismatch.png")
    print(f"{args.out}: results.json, tables.md, mismatch.png")


if __name__ == "__main__":
    main()
