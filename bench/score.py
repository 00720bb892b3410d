"""What the signatures find on labelled traces, beside published loop rules on the same steps.

The labelled traces lie beside the repository; their origin and criteria are in their `index.toml`. Trace level for
`retry_loop` (labels yes and no; borderline and unknown ones are left out), span level for tool errors and empty
results. Context signatures are scored on recordings of real clients and instrumentations that played
`tests/live/context_cases.py`, trace level.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from processors.detect import SignaturesConfig
from processors.detect.examine import examine
from processors.detect.pack import pack
from processors.detect.retry_loop import RetryLoopConfig
from processors.detect.signature import Signature
from processors.detect.steps import Flag, Kind, Step, Steps
from processors.reconcile import narrow
from tests.detect.contexts import runs
from tests.detect.corpus import FOLDER, decoded, labels, steps_of
from tests.live.context_cases import WATCHED

_HAND_READ: Final = ("tau", "Who&When", "AgentRx")
"""Sources whose loops were read by hand, not labelled by a rule."""


@dataclass
class Score:
    """Counts of one comparison."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def add(self, *, wanted: bool, found: bool) -> None:
        self.true_positives += wanted and found
        self.false_positives += found and not wanted
        self.false_negatives += wanted and not found

    @property
    def precision(self) -> float:
        found = self.true_positives + self.false_positives
        return self.true_positives / found if found else 1.0

    @property
    def recall(self) -> float:
        wanted = self.true_positives + self.false_negatives
        return self.true_positives / wanted if wanted else 1.0

    @property
    def f1(self) -> float:
        both = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / both if both else 1.0


def three_in_a_row(calls: list[Step]) -> bool:
    """Three identical calls in a row: the soft limit of Cline, and of opencode."""
    return any(len({_key(call) for call in calls[at : at + 3]}) == 1 for at in range(len(calls) - 2))


def three_anywhere(calls: list[Step]) -> bool:
    """Three identical calls anywhere in the trace: Latitude's rule."""
    counts: dict[tuple[int, int], int] = defaultdict(int)
    for call in calls:
        counts[_key(call)] += 1
    return max(counts.values(), default=0) >= 3


def five_periods(calls: list[Step]) -> bool:
    """A cycle of one to five calls repeated five times: gemini-cli's rule."""
    keys = [_key(call) for call in calls]
    return any(
        keys[at : at + period * 4] == keys[at + period : at + period * 5]
        for period in range(1, 6)
        for at in range(len(keys) - period * 5 + 1)
    )


def four_with_results(calls: list[Step]) -> bool:
    """The same action with the same observation four times in a row: OpenHands' first rule."""
    return any(
        len({(*_key(call), call.output) for call in calls[at : at + 4]}) == 1 and calls[at].flags & Flag.HAS_OUTPUT
        for at in range(len(calls) - 3)
    )


def _key(call: Step) -> tuple[int, int]:
    return call.name, call.input


PUBLISHED: Final[Mapping[str, Callable[[list[Step]], bool]]] = {
    "three in a row": three_in_a_row,
    "three anywhere": three_anywhere,
    "period k x 5": five_periods,
    "4 x same result": four_with_results,
}
OURS: Final = "retry_loop"


def _raise(_signature: Signature, error: Exception) -> None:
    raise error


def looping_by(signature: Signature, steps: Steps) -> set[int]:
    """Numbers of the traces in which a signature finds something."""
    return {finding.trace for finding in examine([signature], steps, _raise)}


def score_loops(signature: Signature | None = None) -> tuple[dict[str, dict[str, Score]], dict[str, int]]:
    """(scores by rule and source, hits on hard negatives by rule); the source '' is all of them, `read` by hand."""
    ids, steps = steps_of(decoded())
    ours = looping_by(signature or RetryLoopConfig().build(), steps)
    scores: dict[str, dict[str, Score]] = {rule: defaultdict(Score) for rule in (OURS, *PUBLISHED)}
    hard: dict[str, int] = dict.fromkeys(scores, 0)
    for number, trace_id in enumerate(ids):
        label = labels()[trace_id]
        loop = label["retry_loop"]
        calls = steps.trace(number).of_kind(Kind.TOOL)
        hits = {OURS: number in ours} | {rule: looping(calls) for rule, looping in PUBLISHED.items()}
        for rule, hit in hits.items():
            hard[rule] += hit and bool(loop.get("hard_negative"))
            if loop["label"] not in ("yes", "no"):
                continue
            groups = ["", label["source"], *(["read"] if label["source"].startswith(_HAND_READ) else [])]
            for group in groups:
                scores[rule][group].add(wanted=loop["label"] == "yes", found=hit)
    return scores, hard


def score_spans() -> dict[str, dict[str, Score]]:
    """Scores of failed and of empty tool results by source; results that are silent by design are not empty."""
    spans = decoded()
    packed = pack(narrow(spans), lambda _provider, _model: 0)
    flags = packed.rows["flags"]
    tool = packed.rows["kind"] == int(Kind.TOOL)
    failed = tool & ((flags & int(Flag.FAILED | Flag.ERROR_RESULT)) != 0)
    empty = tool & ~failed & ((flags & int(Flag.EMPTY)) != 0) & (packed.rows["output_bytes"] > 0)
    scores: dict[str, dict[str, Score]] = {"tool error": defaultdict(Score), "empty result": defaultdict(Score)}
    trace_ids = [packed.traces[number][1] for number in packed.rows["trace"]]
    for row in np.flatnonzero(tool).tolist():
        label = labels()[trace_ids[row]]
        span = f"{int(packed.rows['span_id'][row]):016x}"
        for name, mask, key in (
            ("tool error", failed, "tool_error_span_ids"),
            ("empty result", empty, "empty_result_span_ids"),
        ):
            for group in ("", label["source"]):
                scores[name][group].add(wanted=span in label[key], found=bool(mask[row]))
    return scores


def score_contexts() -> dict[str, dict[str, Score]]:
    """Scores of the context signatures by kind and instrumentation; what its spans do not say is left out."""
    scores: dict[str, dict[str, Score]] = {name: defaultdict(Score) for name in WATCHED}
    for run in runs():
        if run.instrumentation in run.case.untold:
            continue
        for name in WATCHED:
            for group in ("", run.instrumentation):
                scores[name][group].add(wanted=name in run.case.wants, found=name in run.found)
    return scores


def _show_contexts() -> None:
    scores = score_contexts()
    _show("context signatures, trace level", {name: {"": groups[""]} for name, groups in scores.items()})
    print("\ncontext cases: right of those played, by case")
    cases = {run.case.name: run.case for run in runs()}
    for name, case in cases.items():
        played = [run for run in runs() if run.case.name == name]
        told = [run for run in played if run.instrumentation not in case.untold]
        wrong = [run for run in told if run.found != case.wants]
        said = "".join(f"   WRONG {run.instrumentation}: {', '.join(sorted(run.found)) or 'nothing'}" for run in wrong)
        untold = f"   not told by the spans of {len(played) - len(told)}" if len(told) < len(played) else ""
        print(f"{name:44} {len(told) - len(wrong)}/{len(told)}{untold}{said}")


def _show(title: str, scores: Mapping[str, Mapping[str, Score]], hard: Mapping[str, int] | None = None) -> None:
    print(f"\n{title}")
    for rule, groups in scores.items():
        for group in sorted(groups, key=lambda name: (name != "", name != "read", name)):
            score = groups[group]
            where = {"": "all", "read": "read by hand"}.get(group, group)
            extra = f"   hard negatives hit {hard[rule]}" if hard is not None and group == "" else ""
            print(
                f"{rule:30} {where:48} P {score.precision:.3f}  R {score.recall:.3f}  F1 {score.f1:.3f}  "
                f"({score.true_positives} found, {score.false_positives} wrong, {score.false_negatives} missed){extra}"
            )


def _sensitivity() -> None:
    print("\nretry_loop with other thresholds, all sources")
    options: dict[str, tuple[float, ...]] = {
        "calls_min": (2, 3, 4, 5),
        "gap_max": (0, 1, 2, 3),
        "near_share": (0.4, 0.5, 0.6, 0.7, 0.8),
        "same_share": (0.85, 0.9, 0.93, 1.0),
        "words_min": (1, 4, 8, 12),
    }
    for name, value in ((name, value) for name, values in options.items() for value in values):
        scores, hard = score_loops(RetryLoopConfig.model_validate({name: value}).build())
        score = scores[OURS][""]
        print(
            f"{name:12} {value:<5} P {score.precision:.3f}  R {score.recall:.3f}  F1 {score.f1:.3f}  "
            f"hard negatives hit {hard[OURS]}"
        )


def _others() -> None:
    """How often the signatures without labels fire, by source: read these before believing them."""
    ids, steps = steps_of(decoded())
    counts: dict[tuple[str, str], set[int]] = defaultdict(set)
    for finding in examine(SignaturesConfig().build(), steps, _raise):
        kind = f".{finding.found.kind}" if finding.found.kind else ""
        counts[f"{finding.signature}{kind}", labels()[ids[finding.trace]]["source"]].add(finding.trace)
    print("\nTraces with a finding, by signature and source")
    for (name, source), traces in sorted(counts.items()):
        print(f"{name:32} {source:48} {len(traces)}")


def main() -> None:
    _show_contexts()
    if not FOLDER.is_dir():
        print("not scored: the labelled traces (corpus-failures) are not beside the repository")
        return
    _show("retry_loop, trace level", *score_loops())
    _show("tool results, span level", score_spans())
    _sensitivity()
    _others()


if __name__ == "__main__":
    main()
