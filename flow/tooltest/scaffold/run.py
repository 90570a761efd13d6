#!/usr/bin/env python3
"""NAME lays a note into the folder notes. A tool reads one JSON object from stdin and prints one; its log is stderr. With ZHIYUN_RESIDENT=1 it
stays, and answers a line of JSON with a line of JSON. The key is the same whenever the same call is made again. Try it: zhiyun tool test .
"""
import json, os, re, sys


class Failure(Exception):
    def __init__(self, code, message, retry=False):
        super().__init__(message)
        self.said = {"code": code, "message": message, "retry": retry}


def serve(call):
    """call has input, key, undo and plan; what it returns is the output."""
    given = call["input"]
    if not isinstance(given, dict):
        raise Failure("input.invalid", "the input is not an object")
    unknown = set(given) - {"name"} - ({"done"} if call.get("undo") else set())
    if unknown:
        raise Failure("input.invalid", "there is no field " + ", ".join(sorted(unknown)))
    name = given.get("name")
    if not isinstance(name, str) or not re.fullmatch("[a-z0-9-]+", name):
        raise Failure("input.invalid", "name: give small letters, digits and dashes")
    notes = os.path.join(os.environ["ZHIYUN_ROOT"], "notes")
    note, key = os.path.join(notes, name), call["key"]
    output = {"path": "notes/" + name}
    if call.get("undo"):
        undo(notes, note, key)
        return {}
    if call.get("plan"):
        return {"touches": [{"kind": "file", "name": "notes/" + name, "change": "is made"}], "output": output}
    if os.path.exists(note) and read(note) != key:
        raise Failure("note.taken", "the note %s is there already, by another call" % name)
    # Half a note is never seen: it is written beside its place, then moved there.
    os.makedirs(notes, exist_ok=True)
    with open(note + ".tmp", "w") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    os.replace(note + ".tmp", note)
    print("laid", note, file=sys.stderr)
    return output


def undo(notes, note, key):
    """Takes away what this key has made, and is no error if it has made nothing."""
    if read(note) == key:
        os.remove(note)
    if os.path.exists(note + ".tmp"):
        os.remove(note + ".tmp")
    try:
        os.rmdir(notes)
    except OSError:
        pass  # other notes are in it, or it was never there


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def answer(call):
    try:
        return {"output": serve(call)}
    except Failure as failure:
        print(failure, file=sys.stderr)
        return {"error": failure.said}
    except OSError as error:  # another attempt may find it mended
        print(error, file=sys.stderr)
        return {"error": {"code": "note.failed", "message": str(error)}}


def main():
    if sys.argv[1:] == ["--describe"]:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tool.json")) as file:
            sys.stdout.write(file.read())
        return 0
    if os.environ.get("ZHIYUN_RESIDENT"):
        for line in sys.stdin:
            call = json.loads(line)
            print(json.dumps(dict(answer(call), id=call["id"])), flush=True)
        return 0
    env = os.environ.get
    try:
        given = json.load(sys.stdin)
    except ValueError as error:
        said = {"error": {"code": "input.invalid", "message": "stdin is not JSON: %s" % error, "retry": False}}
    else:
        said = answer({"input": given, "key": env("ZHIYUN_KEY", ""), "undo": env("ZHIYUN_UNDO"), "plan": env("ZHIYUN_PLAN")})
    print(json.dumps(said.get("output", said)))
    return 1 if "error" in said else 0


if __name__ == "__main__":
    sys.exit(main())
