"""A deterministic stand-in for an OpenAI-compatible chat endpoint, so that scripts/run needs no account anywhere.

It is no language model and says so in every answer: it counts the words it is given and quotes the first of them.
"""
import hashlib
import time

from service import Problem, serve

WHO = "[deterministic stand-in of migration-router's samples, not a language model]"


class OpenAiProblem(Problem):
    def body(self):
        return {"error": {"message": str(self), "type": "invalid_request_error", "param": self.payload, "code": None}}


def text_of(message):
    content = message.get("content")
    if isinstance(content, list):  # content parts
        content = " ".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def chat(request):
    call = request.json()
    messages = call.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise OpenAiProblem(400, "messages must be a list with at least one message", payload="messages")
    if call.get("stream"):
        raise OpenAiProblem(400, "this stand-in does not stream", payload="stream")
    words = text_of(messages[-1]).split()
    answer = "%s I was given %d words. They begin: %s" % (WHO, len(words), " ".join(words[:12]))
    prompt_tokens = sum(len(text_of(m).split()) for m in messages)
    return {"id": "chatcmpl-" + hashlib.sha256(request.body).hexdigest()[:24], "object": "chat.completion",
            "created": int(time.time()), "model": call.get("model") or "stand-in",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": len(answer.split()),
                      "total_tokens": prompt_tokens + len(answer.split())}}


def models(request):
    return {"object": "list", "data": [{"id": "stand-in", "object": "model", "created": 0, "owned_by": WHO}]}


if __name__ == "__main__":
    serve({
        ("POST", "/v1/chat/completions"): chat,
        ("POST", "/chat/completions"): chat,
        ("GET", "/v1/models"): models,
        ("GET", "/health"): lambda request: "OK",
    }, "sample-llm")
