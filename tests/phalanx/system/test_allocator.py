"""Memory that a step frees is there for the next one, unless the user has set the allocator."""

import statistics

import pytest

from phalanx.system.allocator import huge_pages, keep_freed_memory
from phalanx.train.loading.loader import Fetcher
from phalanx.train.loading.shard import Span
from tests.ranks import Starter
from tests.train.loading.batches import source
from tests.zoo.datasets import Churning

RUN = (
    *("data.train._target_=tests.zoo.datasets.Churning", "~data.train.split", "+data.train.samples=4"),
    *("data.eval=null", "data.augment=null", "train.global_batch=1", "train.epochs=null", "train.steps=11"),
    *("log.every=1", "checkpoint.every_s=null", "model=mlp", "model.inputs=12", "model.hidden=[8]"),
)
A_STEP = 80 * 256  # page faults where all is given back: a MiB has 256 pages
USERS = [
    {"MALLOC_TRIM_THRESHOLD_": "131072"},
    {"MALLOC_CONF": "narenas:2"},
    {"GLIBC_TUNABLES": "glibc.rtld.nns=4:glibc.malloc.trim_threshold=131072"},
    {"LD_PRELOAD": "/usr/lib/libother.so /opt/lib/libjemalloc.so.2"},
    {"LD_PRELOAD": "libtcmalloc_minimal.so.4"},
]


@pytest.mark.parametrize("environ", USERS, ids=lambda environ: next(iter(environ)))
def test_what_the_user_has_set_is_left_alone(environ: dict[str, str]) -> None:
    assert not keep_freed_memory(environ)
    assert huge_pages(environ) == {}


def test_huge_pages_are_no_reason_to_give_memory_back() -> None:
    assert keep_freed_memory({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})
    assert huge_pages({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == {}


def test_ranks_keep_what_a_step_frees_and_where_they_may_not_the_faults_are_told(starter: Starter) -> None:
    """Those above a threshold go back to the kernel for sure; with glibc's own, it is for chance to say which do.

    A heap that is kept still grows in a few steps, by the blocks for which small ones between left no room.
    """
    kept, given_back = (
        starter.train(1, *RUN, name=name, environ=environ)
        for name, environ in (("kept", {}), ("given_back", {"MALLOC_MMAP_THRESHOLD_": "131072"}))
    )
    assert all(line["page_faults"] > A_STEP / 2 for line in given_back.metrics("train"))
    assert statistics.median(line.get("page_faults", 0) for line in kept.metrics("train")) < A_STEP / 4
    assert kept.sha256 == given_back.sha256


def test_data_workers_keep_what_a_sample_frees() -> None:
    first, *later = Fetcher(source(Churning(4, tells=True)), 1, 1, False).batches(Span(i, i + 1) for i in range(10))
    assert first.item() > A_STEP / 2
    assert statistics.median(faults.item() for faults in later) < A_STEP / 4
