"""The same round trips as bench-tasks by the Python client: start_workflow().result(), over gRPC.

    temporal_client.py ADDRESS QUEUE TASK COUNT IN_FLIGHT     prints the same line of JSON
"""
import asyncio
import json
import os
import sys
import time
import uuid
from datetime import timedelta

from temporalio.client import Client


async def main(address, queue, task, count, in_flight):
    client = await Client.connect(address)

    async def one():
        begin = time.perf_counter()
        handle = await client.start_workflow(task + "_workflow", args=[[1, 2], {}], id="%s-%s" % (task, uuid.uuid4()), task_queue=queue,
                                             execution_timeout=timedelta(minutes=1))
        assert await handle.result() == 3
        return time.perf_counter() - begin

    async def run(n):
        left = iter(range(n))

        async def caller():
            return [await one() for _ in left]
        return sorted(sum(await asyncio.gather(*(caller() for _ in range(in_flight))), []))

    await run(max(50, in_flight))
    cpu, begin = time.process_time(), time.perf_counter()
    took = await run(count)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"tasks": count, "in_flight": in_flight, "cpu_us": round(cpu / count * 1e6, 1), "p50_us": round(took[count // 2] * 1e6),
                      "p99_us": round(took[count * 99 // 100] * 1e6), "per_second": round(count / seconds)}),
          flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
    os._exit(0)  # its threads may outlive the interpreter, and fail then
