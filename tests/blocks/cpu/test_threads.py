"""The pool of threads: complete, patient with errors, and alive in every process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from blocks.cpu.threads import run_parallel
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def within(seconds: float, function: Callable[[], None]) -> None:
    """Fails where the function would hang."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still waiting after {seconds} s"
    if errors:
        raise errors[0]


def collect(count: int, pause: float = 0.0) -> list[int]:
    """The indices a task is given, in any order."""
    seen: list[int] = []

    def task(begin: int, end: int) -> None:
        assert begin < end
        time.sleep(pause)
        seen.extend(range(begin, end))

    run_parallel(task, count)
    return seen


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_index_is_done_exactly_once(threads: int) -> None:
    torch.set_num_threads(threads)
    for count in (*range(40), 100, 1001):
        assert sorted(collect(count)) == list(range(count)), count


def test_nothing_is_called_for_nothing() -> None:
    run_parallel(lambda begin, end: pytest.fail("called"), 0)


def test_several_threads_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)
    # Neither of the two would pass the barrier alone.
    within(20, lambda: run_parallel(lambda begin, end: both.wait() and None, 2))


def test_one_thread_is_the_callers() -> None:
    torch.set_num_threads(1)
    names: list[str] = []
    run_parallel(lambda begin, end: names.append(threading.current_thread().name), 5)
    assert names == [threading.current_thread().name]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_error_reaches_the_caller_and_the_pool_lives_on(
    threads: int, kind: type[BaseException]
) -> None:
    torch.set_num_threads(threads)

    def task(begin: int, end: int) -> None:
        if begin <= 5 < end:
            raise kind("at five")

    for _ in range(5):
        with pytest.raises(kind, match="at five"):
            run_parallel(task, 11)
        assert sorted(collect(11)) == list(range(11))


def test_when_all_pieces_fail_one_error_comes_out_after_all_have_ended() -> None:
    ended: list[int] = []

    def task(begin: int, end: int) -> None:
        time.sleep(0.001 * begin)
        ended.extend(range(begin, end))
        raise ValueError(str(begin))

    with pytest.raises(ValueError, match="^[0-7]$"):
        run_parallel(task, 8)
    assert sorted(ended) == list(range(8))


def test_many_callers_at_once_all_get_their_own_work_done() -> None:
    results: dict[int, list[int]] = {}

    def call(name: int) -> None:
        for _ in range(20):
            results[name] = collect(17 + name, pause=0.0001)

    callers = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert {name: sorted(seen) for name, seen in results.items()} == {
        i: list(range(17 + i)) for i in range(6)
    }


def test_a_task_may_itself_be_parallel() -> None:
    seen: list[list[int]] = []

    def task(begin: int, end: int) -> None:
        for _ in range(begin, end):
            seen.append(sorted(collect(13, pause=0.0005)))

    within(30, lambda: run_parallel(task, 9))
    assert seen == [list(range(13))] * 9


def test_the_pool_follows_the_number_of_threads() -> None:
    for threads in (2, 5, 1, 3, 2):
        torch.set_num_threads(threads)
        assert sorted(collect(50, pause=0.0002)) == list(range(50))


FORK = """
import os, sys, torch
from blocks.cpu.threads import run_parallel
torch.set_num_threads(3)

def works():
    seen = []
    run_parallel(lambda begin, end: seen.extend(range(begin, end)), 40)
    return sorted(seen) == list(range(40))

def child(depth):
    pid = os.fork()
    if pid == 0:
        good = works() and (depth == 0 or child(depth - 1)) and works()
        os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

assert works()
assert child(1), "a child, or its child"
assert works(), "the parent afterwards"
def inside(begin, end):
    if begin == 0:
        assert child(0), "forked amid a task"
run_parallel(inside, 9)
print("good")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "good\n", done.stderr


def test_an_interrupt_waits_for_pieces_at_work() -> None:
    """KeyboardInterrupt frees the arguments: no thread may still be writing to them."""
    main, began, finished = threading.current_thread(), threading.Event(), []

    def task(begin: int, end: int) -> None:
        if threading.current_thread() is main:
            began.wait(5)
            raise_in_main()
            time.sleep(0.05)
        else:
            began.set()
            time.sleep(0.3)
            finished.append(begin)

    def raise_in_main() -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_parallel(task, 2)
    assert finished
    assert sorted(collect(10)) == list(range(10))


def test_an_interrupt_while_waiting_for_others_waits_all_the_same() -> None:
    main, finished = threading.current_thread(), []

    def task(begin: int, end: int) -> None:
        if threading.current_thread() is main:
            time.sleep(0.05)  # Leaves a piece to the other thread.
            return
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        finished.append(begin)

    with pytest.raises(KeyboardInterrupt):
        run_parallel(task, 2)
    assert finished
