"""Sample text extraction: the text of an uploaded PDF (by pdftotext) or of a text file."""
import subprocess

from service import Problem, serve


def process(request):
    request.require_bearer()
    fields = request.form()
    if "file" not in fields:
        raise Problem(400, "Missing in the request: file")
    _, _, content = fields["file"]
    return "text/plain; charset=utf-8", text_of(content)


def text_of(content):
    if not content.startswith(b"%PDF-"):
        return content.decode("utf-8", "replace").encode()
    run = subprocess.run(["pdftotext", "-q", "-", "-"], input=content, capture_output=True, timeout=60)
    if run.returncode:
        raise Problem(400, "The file is no PDF that can be read: %s" % run.stderr.decode("utf-8", "replace").strip())
    return run.stdout


def test_connection(request):
    request.require_bearer()
    if not request.form():
        raise Problem(400, "The form is empty")
    return {"message": "Connection is fine"}


if __name__ == "__main__":
    serve({
        ("POST", "/process"): process,
        ("POST", "/test-connection"): test_connection,
        ("GET", "/health"): lambda request: "OK",
    }, "sample-structure")
