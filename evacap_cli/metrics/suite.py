"""Computes all metrics of a set of captions: tokenizes once, then runs the scorers in parallel.

To add a scorer, add an entry to `METRICS` and to `_jobs`.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from evacap_cli.errors import UsageError
from evacap_cli.metrics import ngrams
from evacap_cli.metrics.java import JAVA_CURE, Java, MetricError, Runtime, find_java
from evacap_cli.metrics.meteor import meteor
from evacap_cli.metrics.spice import Progress, SpiceScores, spice
from evacap_cli.metrics.spice_cache import TupleCache
from evacap_cli.metrics.statistics import Array, Measured, Statistic
from evacap_cli.metrics.tokens import plain_tokens, ptb_tokens

# metric -> the scorers it needs
METRICS: dict[str, tuple[str, ...]] = {
    "BLEU_1": ("BLEU",),
    "BLEU_2": ("BLEU",),
    "BLEU_3": ("BLEU",),
    "BLEU_4": ("BLEU",),
    "METEOR": ("METEOR",),
    "ROUGE_L": ("ROUGE_L",),
    "CIDEr": ("CIDEr",),
    "SPICE": ("SPICE",),
    "SPIDEr": ("CIDEr", "SPICE"),
}
PTB, PLAIN = "PTB (CoreNLP 3.4.1)", "built-in"


def choose_metrics(wanted: str | None) -> tuple[str, ...]:
    """Parses comma-separated metric names, case-insensitive; `BLEU` means BLEU_1 to BLEU_4, None all metrics.

    Raises UsageError.
    """
    if wanted is None:
        return tuple(METRICS)
    known = {name.lower(): (name,) for name in METRICS} | {"bleu": tuple(f"BLEU_{n}" for n in range(1, 5))}
    asked = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = [name for name in asked if name.lower() not in known]
    if unknown or not asked:
        names = ", ".join(unknown) or "no name given"
        raise UsageError(f"--metrics {wanted}: unknown metric: {names}", f"choose from {', '.join(METRICS)}")
    chosen = {name for text in asked for name in known[text.lower()]}
    return tuple(name for name in METRICS if name in chosen)


@dataclass(frozen=True)
class Settings:
    """How to score. `java`: the Java program (None: find one); `patience`: timeout in seconds for Java output;
    `heap`: Java heap of METEOR and of SPICE, such as 2G; `threads`: threads of SPICE's parser (None: all cores)."""

    metrics: tuple[str, ...] = tuple(METRICS)
    java: str | None = None
    patience: float = 300.0
    heap: str | None = None
    threads: int | None = None


@dataclass
class Scores:
    """Values of the requested metrics. A metric that could not be computed is None; `unavailable` gives the reason."""

    clips: tuple[str, ...]
    values: dict[str, float | None] = field(default_factory=dict)
    per_clip: dict[str, Array] = field(default_factory=dict)  # (N,) each, in the order of `clips`
    statistics: dict[str, Statistic] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    cures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # by scorer, and `tokens`
    java: Java | None = None
    tokenizer: str = PTB
    spice: SpiceScores | None = None
    wordless: list[str] = field(default_factory=list)  # clips whose candidate has no tokens

    @property
    def id_hash(self) -> str:
        """12 hex digits of the set of clips; their order does not matter."""
        return hashlib.sha256("\n".join(sorted(self.clips)).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def score_captions(
    clips: Sequence[str],
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    settings: Settings | None = None,
    cache: TupleCache | None = None,
    progress: Progress = lambda what, done, total: None,
    sets: int = 1,
) -> Scores:
    """Scores raw captions: one candidate and at least one reference per clip. `sets`: the number of equally long sets
    of captions in the input, one after another; CIDEr treats each set as a corpus of its own.

    Metrics that fail are in `unavailable`: METEOR and SPICE without Java, SPICE without its files, a metric whose
    program fails or times out. `progress` is called from other threads. Raises UsageError if `settings.java` does not
    run or there are no clips.
    """
    if not clips:
        raise UsageError(
            "there are no clips to score", "give at least one clip with a caption and references"
        )
    settings = settings or Settings()
    scores = Scores(tuple(clips))
    with tempfile.TemporaryDirectory(prefix="evacap-score-", ignore_cleanup_errors=True) as folder:
        runtime, trouble = _runtime(settings, Path(folder), scores)
        try:
            began = time.monotonic()
            candidate_tokens, reference_tokens = _tokenize(runtime, candidates, references, scores)
            scores.seconds["tokens"] = time.monotonic() - began
            scores.wordless = [
                clip for clip, text in zip(clips, candidate_tokens, strict=True) if not text.strip()
            ]
            jobs = _jobs(
                runtime,
                candidate_tokens,
                reference_tokens,
                cache or TupleCache(None),
                settings,
                progress,
                scores,
                sets,
            )
            found, failed = _run(jobs, trouble, runtime, scores)
        except BaseException:
            if runtime is not None:
                runtime.stop.set()
            raise
    _collect(scores, settings.metrics, found, failed)
    return scores


def _runtime(settings: Settings, folder: Path, scores: Scores) -> tuple[Runtime | None, MetricError | None]:
    try:
        scores.java = find_java(settings.java)
    except MetricError as error:
        return None, error
    return Runtime(scores.java, folder, settings.patience, settings.heap, threading.Event()), None


def _tokenize(
    runtime: Runtime | None, candidates: Sequence[str], references: Sequence[Sequence[str]], scores: Scores
) -> tuple[list[str], list[list[str]]]:
    flat = [text for captions in references for text in captions]
    try:
        if runtime is None:
            raise MetricError("no Java")
        with ThreadPoolExecutor(2) as pool:
            both = pool.map(lambda texts: ptb_tokens(runtime, texts), (candidates, flat))
            candidate_tokens, reference_tokens = both
    except MetricError as error:
        scores.tokenizer = f"{PLAIN} ({error.message})"
        candidate_tokens, reference_tokens = plain_tokens(candidates), plain_tokens(flat)
    each = iter(reference_tokens)
    return candidate_tokens, [[next(each) for _ in captions] for captions in references]


def _jobs(
    runtime: Runtime | None,
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    cache: TupleCache,
    settings: Settings,
    progress: Progress,
    scores: Scores,
    sets: int,
) -> dict[str, Callable[[], Measured] | None]:
    """The scorers that the requested metrics need. A scorer that needs Java is None if there is no Java."""

    def run_spice(runtime: Runtime) -> Measured:
        found, scores.spice = spice(runtime, candidates, references, cache, settings.threads, progress)
        return found

    known: dict[str, Callable[[], Measured] | None] = {
        "SPICE": None if runtime is None else lambda: run_spice(runtime),
        "METEOR": None if runtime is None else lambda: meteor(runtime, candidates, references),
        "CIDEr": lambda: ngrams.cider(candidates, references, sets),
        "BLEU": lambda: ngrams.bleu(candidates, references),
        "ROUGE_L": lambda: ngrams.rouge_l(candidates, references),
    }
    needed = {scorer for name in settings.metrics for scorer in METRICS[name]}
    return {scorer: job for scorer, job in known.items() if scorer in needed}


def _run(
    jobs: dict[str, Callable[[], Measured] | None],
    trouble: MetricError | None,
    runtime: Runtime | None,
    scores: Scores,
) -> tuple[Measured, dict[str, MetricError]]:
    """Runs all jobs in parallel. Returns the results and the errors by scorer."""

    def timed(scorer: str, job: Callable[[], Measured]) -> Measured:
        began = time.monotonic()
        try:
            return job()
        finally:
            scores.seconds[scorer] = time.monotonic() - began

    all_found, failed = Measured(), {}
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        running: dict[str, Future[Measured]] = {}
        for scorer, job in jobs.items():
            if job is None:
                failed[scorer] = trouble or MetricError("no Java", JAVA_CURE)
            else:
                running[scorer] = pool.submit(timed, scorer, job)
        try:
            wait(running.values())
            for scorer, future in running.items():
                try:
                    found = future.result()
                except MetricError as error:
                    failed[scorer] = error
                    continue
                all_found.corpus |= found.corpus
                all_found.per_clip |= found.per_clip
                all_found.statistics |= found.statistics
        except BaseException:
            if runtime is not None:
                runtime.stop.set()  # otherwise, leaving the pool waits for the Java programs
            raise
    return all_found, failed


def _collect(scores: Scores, metrics: Sequence[str], found: Measured, failed: dict[str, MetricError]) -> None:
    """Fills `scores` with the requested metrics, including those derived from others."""
    if "CIDEr" in found.corpus and "SPICE" in found.corpus:
        per_clip = (found.per_clip["CIDEr"] + found.per_clip["SPICE"]) / 2
        found.add("SPIDEr", (found.corpus["CIDEr"] + found.corpus["SPICE"]) / 2, per_clip)
    for name in metrics:
        scores.values[name] = found.corpus.get(name)
        if name in found.corpus:
            scores.per_clip[name], scores.statistics[name] = found.per_clip[name], found.statistics[name]
        else:
            lacking = [scorer for scorer in METRICS[name] if scorer in failed]
            scores.unavailable[name] = "; ".join(failed[scorer].message for scorer in lacking)
            if name not in METRICS[name]:
                scores.unavailable[name] = f"needs {' and '.join(lacking)}"
    scores.cures = list(dict.fromkeys(error.cure for error in failed.values() if error.cure))
