"""The Temporal worker of compose.yaml, in the convention of the task abstraction library: workflow <task>_workflow, run with
[args, kwargs], around the activity <task>.

    temporal_tasks.py HOST:PORT TASK-QUEUE
"""
import asyncio
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import executor


@activity.defn(name="execute_extraction")
def execute_extraction(args, kwargs):
    return executor.run(*args, **kwargs)


@workflow.defn(name="execute_extraction_workflow")
class ExecuteExtraction:
    @workflow.run
    async def run(self, args, kwargs):
        return await workflow.execute_activity(execute_extraction, args=[args, kwargs], start_to_close_timeout=timedelta(minutes=1),
                                               retry_policy=RetryPolicy(maximum_attempts=1))


async def main():
    address, queue = sys.argv[1:]
    client = await Client.connect(address)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with ThreadPoolExecutor(4) as pool:
        async with Worker(client, task_queue=queue, workflows=[ExecuteExtraction], activities=[execute_extraction],
                          activity_executor=pool):
            print("polling %s" % queue)
            await ended.wait()


if __name__ == "__main__":  # the sandbox of workflows reads this file again
    asyncio.run(main())
