"""A Temporal worker in the convention of the existing Python workers: activity <task>, workflow <task>_workflow run with
[args, kwargs]. Beside those, workflows of their own that take one input.

    temporal_worker.py HOST:PORT TASK-QUEUE PLACES

Says "ready" on standard output once it polls.
"""
import asyncio
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

import core_tasks

PLACES = int(sys.argv[3])


def give_nothing():
    return None


def fail_in_between(message):
    try:
        raise KeyError("cause of it")
    except KeyError as why:
        raise ApplicationError(message, {"code": 7}, type="BadInput", non_retryable=True) from why


TASKS = core_tasks.TASKS + [give_nothing, fail_in_between]


def task_of(function):
    """Activity and workflow of one task, as the task abstraction library makes them."""
    name = function.__name__

    def call(args, kwargs):
        return function(*args, **kwargs)

    class TaskWorkflow:
        async def run(self, args, kwargs):
            return await workflow.execute_activity(name, args=[args, kwargs], start_to_close_timeout=timedelta(minutes=5),
                                                   retry_policy=RetryPolicy(maximum_attempts=1))
    TaskWorkflow.run.__qualname__ = "TaskWorkflow.run"
    TaskWorkflow.run = workflow.run(TaskWorkflow.run)
    return activity.defn(name=name)(call), workflow.defn(name=name + "_workflow", sandboxed=False)(TaskWorkflow)


@workflow.defn(name="takes-one", sandboxed=False)
class TakesOne:
    @workflow.run
    async def run(self, value):
        return {"got": value}


@workflow.defn(name="once-more", sandboxed=False)
class OnceMore:
    """Ends in a second run: continue-as-new."""

    @workflow.run
    async def run(self, left):
        if left > 0:
            workflow.continue_as_new(left - 1)
        return "the last run"


async def main():
    client = await Client.connect(sys.argv[1])
    pairs = [task_of(function) for function in TASKS]
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    worker = Worker(client, task_queue=sys.argv[2], activities=[a for a, _ in pairs],
                    workflows=[w for _, w in pairs] + [TakesOne, OnceMore],
                    activity_executor=ThreadPoolExecutor(PLACES), max_concurrent_activities=PLACES)
    async with worker:
        print("ready", flush=True)
        await ending.wait()


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)
