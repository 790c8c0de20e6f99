"""The order of measuring: libraries take turns, effort fits the time given, one that fails does not stop the others."""

from __future__ import annotations

from fake import on_ranks

from pycomm.perf import limit
from pycomm.perf.bench import Cell
from pycomm.perf.cases import CASES
from pycomm.perf.coordinator import CooperatingJob, Effort, cooperate, measure
from pycomm.perf.worker import Server

CELL = Cell("allreduce", 2, "float", "sum", 0, False, 1 << 20)


class _Job:
    """A job of two ranks whose calls take 1 and 3 microseconds, and a millisecond with all around them."""

    version = "1"
    hosts = ((1, "here"), (2, "here"))

    def __init__(self, name, log, fails_at=None, refuses=False):
        self.name, self._log, self._fails_at, self._refuses = name, log, fails_at, refuses
        self.requests = []

    def ask(self, request):
        self._log.append(self.name)
        self.requests.append(request)
        if len(self.requests) == self._fails_at:
            raise RuntimeError("gone")
        if self._refuses:
            return [{"unsupported": "cannot"}] * 2
        n = request["iterations"]
        wrong = 1 if request["check"] else None
        return [{"times": [t] * n, "wall": 1e6, "wrong": wrong} for t in (1000, 3000)]

    def close(self):
        """Nothing to do."""


def _measure(effort, **jobs):
    log, failures = [], []
    made = [_Job(name, log, **options) for name, options in jobs.items()]
    samples = measure(made, CELL, effort, lambda job, error: failures.append((job.name, str(error))))
    return log, made, samples, failures


def test_libraries_take_turns():
    log, *_ = _measure(Effort(rounds=2), a={}, b={}, c={})
    assert log == list("abcabcabc")


def test_effort_fits_the_seconds():
    _, (job,), samples, _ = _measure(Effort(seconds=0.3, rounds=3), a={})
    assert [r["iterations"] for r in job.requests[1:]] == [100, 100, 100]
    assert len(samples["a"].times) == 300
    _, (job,), _, _ = _measure(Effort(seconds=0.001, rounds=3, least=12), a={})
    assert [r["iterations"] for r in job.requests[1:]] == [4, 4, 4]
    _, (job,), _, _ = _measure(Effort(iterations=20, rounds=3), a={})
    assert [r["iterations"] for r in job.requests[1:]] == [7, 7, 7]


def test_ranks_are_combined_as_asked():
    for average, median in (("rank0", 1.0), ("mean", 2.0), ("min", 1.0), ("max", 3.0)):
        _, _, samples, _ = _measure(Effort(average=average), a={})
        assert samples["a"].median == median


def test_the_first_and_last_round_are_checked():
    _, (job,), samples, _ = _measure(Effort(rounds=3), a={})
    assert [r["check"] for r in job.requests] == [True, False, False, True]
    assert samples["a"].wrong == 4
    _, _, samples, _ = _measure(Effort(check=False), a={})
    assert samples["a"].wrong is None


def test_a_library_that_fails_is_left_out_and_the_others_go_on():
    log, _, samples, failures = _measure(Effort(rounds=2), a={}, b={"fails_at": 2}, c={"refuses": True})
    assert failures == [("b", "gone")]
    assert log == list("abc" + "ab" + "a")
    assert set(samples) == {"a", "c"}
    assert samples["c"].unsupported == "cannot" and not samples["c"].times


def test_a_running_job_measures_itself():
    def rank(library):
        servers = {"fake": Server(library)}
        if library.rank:
            cooperate(servers)
            return None
        job = CooperatingJob(library, servers["fake"])
        samples = measure([job], CELL, Effort(iterations=6), lambda job, error: None)
        rates = [reply["rate"] for reply in job.ask({"do": "socket"})]
        job.close()
        return job.hosts, samples["fake"], rates

    hosts, sample, rates = on_ranks(3, rank)[0]
    assert len(hosts) == 3 and len(sample.times) == 6 and sample.wrong == 0
    assert all(rate > 1e6 for rate in rates)


def test_the_machine_has_a_memory_rate():
    assert all(rate > 1e8 for rate in on_ranks(2, limit.memory_rate))


def test_least_bytes():
    assert limit.least_bytes(CASES["allreduce"], 1000, 4, 2, over_sockets=False) == 16000
    assert limit.least_bytes(CASES["allreduce"], 1000, 4, 4, over_sockets=True) == 1.5 * 4000
    assert limit.least_bytes(CASES["alltoall"], 1000, 4, 4, over_sockets=True) == 3 * 4000
    assert limit.least_bytes(CASES["barrier"], 0, 4, 2, over_sockets=False) == 0
