"""Sample prompt service: answers by counting and quoting, the same for the same question. No language model is asked."""
import hashlib

from service import Problem, serve


def answer_of(key, prompt, run_id):
    number = int.from_bytes(hashlib.sha256(("%s\0%s" % (key, prompt)).encode()).digest()[:4], "big")
    return {"text": "sample answer %d" % (number % 1000), "run_id": run_id}


def answers(call):
    outputs = call.get("outputs")
    if not isinstance(outputs, list) or not outputs:
        raise Problem(400, "Missing in the request: outputs", payload={"run_id": call.get("run_id")})
    for output in outputs:
        if not isinstance(output, dict) or not output.get("name"):
            raise Problem(400, "Every output needs a name", payload={"run_id": call.get("run_id")})
    return {output["name"]: answer_of(output["name"], output.get("prompt", ""), call.get("run_id"))["text"]
            for output in outputs}


def operation(name, shape):
    def call(request):
        request.require_bearer()
        body = request.json()
        return {**shape(body), "metadata": {"run_id": body.get("run_id"), "file_name": body.get("file_name"),
                                            "operation": name, "served_by": "legacy"}}
    return call


def extracted(body):
    if not body.get("file_path") and not body.get("file_name"):
        raise Problem(400, "Missing in the request: file_name")
    return {"extracted_text": "text of %s" % (body.get("file_name") or body["file_path"])}


def indexed(body):
    if not body.get("file_hash"):
        raise Problem(400, "Missing in the request: file_hash")
    return {"doc_id": hashlib.sha256(str(body["file_hash"]).encode()).hexdigest()}


def summarized(body):
    text = str(body.get("context") or body.get("file_name") or "")
    return {"data": "%d words: %s" % (len(text.split()), text[:80])}


if __name__ == "__main__":
    serve({
        ("POST", "/answer-prompt"): operation("answer_prompt", lambda body: {"output": answers(body)}),
        ("POST", "/single-pass-extraction"): operation("single_pass_extraction", lambda body: {"output": answers(body)}),
        ("POST", "/agentic/extract"): operation("agentic_extraction", lambda body: {"output": answers(body)}),
        ("POST", "/extract"): operation("extract", extracted),
        ("POST", "/index"): operation("index", indexed),
        ("POST", "/summarize"): operation("summarize", summarized),
        ("GET", "/health"): lambda request: "OK",
    }, "sample-prompt")
