"""Sample executor: what the task execute_extraction runs, in the shape of the real one, with the prompt service's answers."""
import prompt
from service import Problem, serve

SHAPES = {"answer_prompt": lambda body: {"output": prompt.answers(body)},
          "single_pass_extraction": lambda body: {"output": prompt.answers(body)},
          "agentic_extraction": lambda body: {"output": prompt.answers(body)},
          "extract": prompt.extracted, "index": prompt.indexed, "summarize": prompt.summarized}


def run(call):
    operation = call.get("operation")
    if operation not in SHAPES:
        return failed("There is no operation %s" % operation)
    body = call.get("executor_params") or {}
    try:
        answer = SHAPES[operation](body)
    except Problem as problem:
        return failed(str(problem))
    metadata = {"run_id": body.get("run_id"), "file_name": body.get("file_name"), "operation": operation, "served_by": "task"}
    return {"success": True, "data": {**answer, "metadata": metadata}, "metadata": {}, "error": None}


def failed(error):
    return {"success": False, "data": {}, "metadata": {}, "error": error}


def execute(request):
    return run(request.json())


if __name__ == "__main__":
    serve({("POST", "/execute"): execute, ("GET", "/health"): lambda request: "OK"}, "sample-executor")
