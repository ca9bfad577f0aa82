"""What the checks make of what was measured, on figures that no machine here has."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.launch.commands.doctor import _options
from phalanx.launch.doctor.checks.allreduce import AllReduce, bus_gbyte_per_s, network_gbyte_per_s
from phalanx.launch.doctor.checks.clocks import Clocks, midpoint_s
from phalanx.launch.doctor.checks.gpu.copies import HostToDevice
from phalanx.launch.doctor.checks.gpu.health import Gpus
from phalanx.launch.doctor.checks.gpu.matmul import Matmul
from phalanx.launch.doctor.checks.pairs import Pairs, rounds, slow_ones
from phalanx.launch.doctor.checks.ports import Ports
from phalanx.launch.doctor.checks.resource_limits import ResourceLimits
from phalanx.launch.doctor.checks.shared_folder import SharedFolder
from phalanx.launch.doctor.checks.versions import Versions, runs_on
from phalanx.launch.doctor.finding import Finding, Verdict, as_json, from_json, table
from phalanx.launch.doctor.peaks import peak_of
from phalanx.launch.doctor.reach import why_closed
from tests.launch.doctor.findings import one, ranks_on
from tests.ranks import free_port

GIB = 2**30


@given(st.integers(min_value=2, max_value=40))
def test_all_pairs_meet_once_and_no_rank_twice_in_a_round(size: int) -> None:
    schedule = rounds(size)
    assert len(schedule) == size - 1 + size % 2
    assert sorted(pair for turn in schedule for pair in turn) == list(combinations(range(size), 2))
    for turn in schedule:
        ranks = [rank for pair in turn for rank in pair]
        assert len(ranks) == len(set(ranks))


def test_the_rank_that_is_slow_with_all_is_the_slow_one() -> None:
    rates = {pair: 1.0 if 2 in pair else 10.0 for pair in combinations(range(5), 2)}
    assert slow_ones(rates, dict.fromkeys(rates, "same host")) == [2]
    assert slow_ones(dict.fromkeys(rates, 3.0), dict.fromkeys(rates, "same host")) == []
    assert slow_ones({(0, 1): 1.0}, {(0, 1): "same host"}) == [], "two ranks cannot tell whose fault it is"


def test_a_slow_network_is_not_taken_for_slow_ranks() -> None:
    kind = {(a, b): "same host" if a // 2 == b // 2 else "two hosts" for a, b in combinations(range(6), 2)}
    assert slow_ones({pair: 100.0 if k == "same host" else 5.0 for pair, k in kind.items()}, kind) == []


def pair_facts(size: int, rate: Any, device: str) -> list[dict[str, Any]]:
    return [
        {"rates": {str(b): rate(a, b) for b in range(size) if b != a}, "errors": {}, "device": device}
        for a in range(size)
    ]


def test_the_bad_gpu_and_the_bad_node_are_named() -> None:
    facts = pair_facts(4, lambda a, b: 2.0 if 3 in (a, b) else 40.0, "cuda")
    (found,) = Pairs().judge(ranks_on("a", "a", "a", "a"), facts)
    assert found.verdict is Verdict.FAIL
    assert found.measured.startswith("rank 3 on a is slow with all")
    facts = pair_facts(4, lambda a, b: 1.0 if 1 in (a, b) else 10.0, "cpu")
    (found,) = Pairs().judge(ranks_on("a", "b", "c", "d"), facts)
    assert found.verdict is Verdict.FAIL
    assert found.measured.startswith("b is slow with every other host")


def test_a_pair_that_fails_names_the_rank_that_all_such_pairs_share() -> None:
    facts = pair_facts(3, lambda a, b: 1.0, "cpu")
    facts[0]["errors"] = {"2": "timed out"}
    facts[1]["errors"] = {"2": "timed out"}
    (found,) = Pairs().judge(ranks_on("a", "b", "c"), facts)
    assert found.measured == "2 pairs failed, all with rank 2 on c: timed out"


def test_bus_bandwidth_is_that_of_nccl_tests() -> None:
    """1 GB in 0.1 s is 10 GB/s for the algorithm: 2 x 7/8 of it on each link of 8 ranks, all of it on those of 2."""
    assert bus_gbyte_per_s(10**9, 0.1, 8) == pytest.approx(17.5)
    assert bus_gbyte_per_s(10**9, 0.1, 2) == pytest.approx(10.0)


def test_the_all_reduce_is_held_against_the_network_between_hosts(tmp_path: Path) -> None:
    for port in ("mlx5_0", "mlx5_1"):
        (tmp_path / "infiniband" / port / "ports" / "1").mkdir(parents=True)
        (tmp_path / "infiniband" / port / "ports" / "1" / "rate").write_text("400 Gb/sec (4X NDR)\n")
    network = network_gbyte_per_s(tmp_path)
    assert network == 100.0
    for seconds, verdict in ((0.01, Verdict.PASS), (0.03, Verdict.FAIL)):
        fact = {"seconds": {str(10**9): seconds}, "network_gbyte_per_s": network, "backend": "nccl"}
        assert [found.verdict for found in AllReduce().judge(ranks_on("a", "b"), [fact, fact])] == [verdict]


def test_an_interface_without_a_rate_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "net" / "eth0").mkdir(parents=True)
    (tmp_path / "net" / "eth0" / "speed").write_text("-1\n")
    assert network_gbyte_per_s(tmp_path) is None


def test_clock_skew_is_told_from_the_shortest_round_trip() -> None:
    """The clock is 5 s ahead; a slow way back would make it look 6 s behind that."""
    assert midpoint_s([(100.0, 105.1, 112.0), (200.0, 205.05, 200.1)]) == pytest.approx(5.0)
    facts: list[dict[str, float]] = [{"1": 5.0}, {}]
    (found,) = Clocks().judge(ranks_on("a", "b"), facts)
    assert found.verdict is Verdict.FAIL
    assert found.measured.startswith("+5.0000 s on b")


def test_a_folder_that_is_not_shared_is_named_with_both_sides() -> None:
    facts = [{"missing": [1], "waited_s": 10, "mbyte_per_s": 100.0, "free_bytes": GIB}] * 2
    found = one(SharedFolder(Path("runs")).judge(ranks_on("a", "b"), facts), "shared folder")
    assert found.verdict is Verdict.FAIL
    assert found.measured == "rank 0 on a does not see in runs what rank 1 on b wrote there"


@pytest.mark.parametrize(("free_bytes", "verdict"), [(2 * GIB, "pass"), (GIB // 2, "warn"), (64 * 2**20, "fail")])
def test_shared_memory_is_held_against_what_data_workers_need(free_bytes: int, verdict: str) -> None:
    facts = [
        {"shm_bytes": free_bytes, "shm_free_bytes": free_bytes, "files": 1024, "files_most": 2**20}
        | {"locked_bytes": 65536, "rdma": True}
    ]
    findings = ResourceLimits().judge(ranks_on("a"), facts)
    assert one(findings, "/dev/shm").verdict == verdict
    assert one(findings, "open files").advice == "type ulimit -n 4096 before the command"
    assert one(findings, "locked memory").verdict is Verdict.FAIL


VERSIONS = {"Python": "3.12.1", "torch": "2.14.1+cu130", "CUDA": "13.0", "NCCL": "2.30.7", "driver": "580.95.05"} | {
    "driver_there": True,
    "gpus": 8,
    "capability": "9.0",
    "built_for": ["sm_80", "sm_90"],
}


@pytest.mark.parametrize(
    ("name", "changed", "measured"),
    [
        ("versions", {"NCCL": "2.28.3"}, "NCCL 2.30.7 on rank 0, 2.28.3 on rank 1 on b"),
        ("CUDA and driver", {"driver": "570.124.06"}, "driver 570.124.06 with CUDA 13.0, which needs 580.65 or newer"),
        ("CUDA and driver", {"capability": "7.0"}, "torch is built for sm_80, sm_90, and the card is of 7.0"),
        ("releases", {"torch": "2.9.0"}, "Python 3.12.1, torch 2.9.0"),
        (
            "CUDA and driver",
            {"gpus": 0, "CUDA": None},
            "torch 2.14.1+cu130 is built without CUDA on rank 1 on b, which has a driver",
        ),
        (
            "CUDA and driver",
            {"gpus": 0, "given": 8, "blindness": "the driver is too old"},
            "8 GPUs are there and torch sees none on rank 1 on b: the driver is too old",
        ),
    ],
)
def test_versions_that_do_not_fit_together_fail(name: str, changed: dict[str, Any], measured: str) -> None:
    facts = [VERSIONS, VERSIONS | changed] if name == "versions" or "gpus" in changed else [VERSIONS | changed] * 2
    found = one(Versions().judge(ranks_on("a", "b"), facts), name)
    assert found.verdict is Verdict.FAIL
    assert found.measured == measured
    assert all(finding.verdict is Verdict.PASS for finding in Versions().judge(ranks_on("a", "b"), [VERSIONS] * 2))


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        *(("8.6", "sm_80", True), ("8.0", "sm_86", False), ("9.0", "sm_80", False), ("9.0", "compute_80", True)),
        *(("9.0", "sm_90a", True), ("10.0", "sm_90a", False), ("12.0", "sm_120", True)),
    ],
)
def test_which_cards_a_build_runs_on(capability: str, built_for: str, runs: bool) -> None:
    assert runs_on(capability, [built_for]) is runs


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        *(("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-80GB", 312)),
        *(("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA A10G", 70)),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_the_peak_is_that_of_the_card(name: str, bf16: float | None) -> None:
    peak = peak_of(name)
    assert peak is not None
    assert peak.bf16 == bf16


def test_no_peak_is_made_up() -> None:
    assert peak_of("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    assert peak_of("NVIDIA GeForce RTX 2080") is None
    assert peak_of("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None


def test_a_gpu_below_the_others_or_below_its_peak_is_named() -> None:
    def rates(*tflop_per_s: float) -> Finding:
        facts = [
            {"model": "NVIDIA H100 80GB HBM3", "rates": {"bf16": rate}, "peaks": {"bf16": 989}, "slowdowns": ["heat"]}
            for rate in tflop_per_s
        ]
        return one(Matmul().judge(ranks_on(*"a" * len(facts)), facts), "matmul bf16")

    assert rates(700, 690, 710).verdict is Verdict.PASS
    assert rates(700, 500, 710).verdict is Verdict.FAIL
    assert rates(700, 500, 710).measured.startswith("500 TFLOP/s on rank 1 on a")
    assert rates(300, 300).verdict is Verdict.FAIL
    assert rates(300, 300).measured.endswith("slowed by heat")


def card(**changed: Any) -> dict[str, Any]:
    words: dict[str, Any] = {
        "used_bytes": GIB,
        "ecc": True,
        "uncorrected": 0,
        "remap_failed": False,
        "remap_pending": False,
    }
    words |= {"clock_mhz": 345, "clock_most_mhz": 1980, "celsius": 31, "slowdowns": [], "nvlinks": 18}
    words |= {"nvlinks_there": 18, "pcie_lanes": 16, "pcie_lanes_most": 16} | changed
    return {"model": "NVIDIA H100", "memory_bytes": 80 * GIB, "seen": 2, "unreachable": [], "card": words}


@pytest.mark.parametrize(
    ("name", "changed", "verdict"),
    [
        ("GPU health", {"uncorrected": 2}, "fail"),
        ("GPU health", {"remap_failed": True}, "fail"),
        ("GPU health", {"used_bytes": 40 * GIB}, "warn"),
        ("GPU clocks", {"slowdowns": ["heat (hardware)"]}, "fail"),
        ("GPU links", {"nvlinks": 17}, "fail"),
        ("GPU links", {"pcie_lanes": 8}, "warn"),
    ],
)
def test_a_card_that_is_not_well_is_named(name: str, changed: dict[str, Any], verdict: str) -> None:
    found = one(Gpus().judge(ranks_on("a", "a"), [card(), card(**changed)]), name)
    assert found.verdict == verdict
    assert "rank 1 on a" in found.measured
    assert all(finding.verdict is Verdict.PASS for finding in Gpus().judge(ranks_on("a", "a"), [card(), card()]))


def test_a_rank_without_a_gpu_among_others_with_one_fails() -> None:
    (found,) = Gpus().judge(ranks_on("a", "a"), [card(), None])
    assert (found.verdict, found.measured) == (Verdict.FAIL, "rank 1 on a has no GPU, and 1 ranks have one")


def test_copies_are_held_against_the_link() -> None:
    (found,) = HostToDevice().judge(ranks_on("a"), [{"rate": 12.0, "link": 63.0}])
    assert found.verdict is Verdict.FAIL


def test_a_closed_port_says_who_does_not_reach_whom() -> None:
    facts: list[dict[str, Any]] = [
        {"closed": {"1": "no answer within 3 s, as behind a firewall"}, "nameless": [], "address": "10.0.0.1"},
        {"closed": {}, "nameless": [], "address": "10.0.0.2"},
    ]
    (found,) = Ports().judge(ranks_on("a", "b"), facts)
    assert found.verdict is Verdict.FAIL
    assert found.measured.startswith("rank 0 on a does not reach rank 1 on b at 10.0.0.2: no answer")
    assert why_closed("127.0.0.1", free_port()) == "the machine answers, but nobody listens on this port"


def test_a_report_reads_back_as_it_was_and_shows_what_to_do() -> None:
    findings = [Finding("a", Verdict.FAIL, "1 GB/s", "2 GB/s", "more"), Finding("b", Verdict.PASS, "2", "2")]
    assert from_json(as_json(findings)) == findings
    assert "do: more" in table(findings)
    assert table(findings).endswith("1 pass, 1 fail")


def test_variables_that_a_bare_torchrun_takes_for_options_are_named() -> None:
    assert _options({"PATH": "/bin", "LOCAL_RANK": "0"}) == []
    [found] = _options({"PET_NNODES": "2", "PET_RDZV_ENDPOINT": "db://me:hunter22@head:29400"})
    assert found.verdict is Verdict.WARN
    assert found.measured == "PET_NNODES=2, PET_RDZV_ENDPOINT=db://me:[redacted]@head:29400"
    assert "Type env -u PET_NNODES" in found.advice
