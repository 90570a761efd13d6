#!/usr/bin/env python3
"""A worker in another language: it runs the tools of one device over HTTP and JSON.

    worker.py http://127.0.0.1:7070 d1 FOLDER NAME=PROGRAM [NAME=PROGRAM ...]

It keeps the three promises of a worker. An attempt is on disk before it runs. An attempt that it knows is not run again: its result is
told again, or, if it was cut off, that its effect is unknown. A result is kept until it is acknowledged. The token, if the server wants
one, is in ZHIYUN_TOKEN_FILE.
"""
import base64, ctypes, hashlib, json, os, signal, subprocess, sys, threading, time, urllib.error, urllib.request

URL, DEVICE, FOLDER = sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3]
TOOLS = dict(pair.split("=", 1) for pair in sys.argv[4:])
TOKEN = open(os.environ["ZHIYUN_TOKEN_FILE"]).read().strip() if os.environ.get("ZHIYUN_TOKEN_FILE") else ""

LIBC = ctypes.CDLL(None)

lock = threading.Lock()  # guards what follows
running = {}             # attempt -> process, or None before it has started
finished = {}            # attempt -> result, until it is acknowledged
say = []                 # what the next exchange tells


def path(attempt):
    return os.path.join(FOLDER, hashlib.sha256(attempt.encode()).hexdigest()[:32] + ".json")


def keep(attempt, result):
    """Writes an attempt, and its result if there is one, so that it survives a power cut."""
    with open(path(attempt) + ".tmp", "w") as file:
        json.dump({"id": attempt, "result": result}, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path(attempt) + ".tmp", path(attempt))
    folder = os.open(FOLDER, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def failure(code, message, unknown=False, permanent=False):
    return {"error": {"code": code, "message": message, "unknown": unknown, "permanent": permanent}}


def run(call):
    attempt, seconds = call["id"], int(call.get("timeoutMs", 300000)) / 1000
    program = TOOLS.get(call["tool"])
    if program is None or call.get("plan"):
        return failure("tool.missing", "%s is not a tool of %s" % (call["tool"], DEVICE), permanent=True)
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
    env.update(ZHIYUN_KEY=call["key"], ZHIYUN_EXECUTION=call.get("execution", ""), ZHIYUN_STEP=call.get("step", ""),
               ZHIYUN_ITEM=str(call.get("item", 0)), ZHIYUN_ATTEMPT=str(call.get("attempt", 0)), ZHIYUN_DEVICE=DEVICE)
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, start_new_session=True,
                               preexec_fn=lambda: LIBC.prctl(1, signal.SIGKILL))  # it dies with this worker (PR_SET_PDEATHSIG)
    with lock:
        running[attempt] = process
    logs = []

    def read_logs():
        for line in process.stderr:
            logs.append(line)
            with lock:
                say.append({"log": {"id": attempt, "data": base64.b64encode(line).decode()}})

    reader = threading.Thread(target=read_logs)
    reader.start()
    timer = threading.Timer(seconds, lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    try:
        process.stdin.write(base64.b64decode(call.get("input", "")) or b"{}")
        process.stdin.close()
    except BrokenPipeError:
        pass
    output = process.stdout.read(1 << 20)
    code = process.wait()
    timer.cancel()
    reader.join()
    text = b"".join(logs)[-8192:].decode(errors="replace")
    if code == 0:
        return {"output": base64.b64encode(output.strip() or b"{}").decode(), "logs": text}
    return dict(failure("exit", "exit status %d" % code, unknown=code < 0), logs=text)


def attempt(call):
    result = run(call)
    with lock:
        keep(call["id"], result)
        running.pop(call["id"], None)
        finished[call["id"]] = result
        say.append({"finished": dict(result, id=call["id"])})


def hear(message):
    with lock:
        if "run" in message:
            call = message["run"]
            if call["id"] in finished:
                say.append({"finished": dict(finished[call["id"]], id=call["id"])})
            elif call["id"] not in running:
                keep(call["id"], None)
                running[call["id"]] = None
                threading.Thread(target=attempt, args=(call,), daemon=True).start()
        elif "stop" in message:
            id = message["stop"]["id"]
            if running.get(id):
                os.killpg(running[id].pid, signal.SIGKILL)
            elif id in finished:
                say.append({"finished": dict(finished[id], id=id)})
            elif id not in running:
                say.append({"finished": dict(failure("cancelled", "it was stopped before it began"), id=id)})
        elif "acknowledge" in message:
            id = message["acknowledge"]["id"]
            if finished.pop(id, None) is not None:
                os.remove(path(id))


def exchange(request):
    headers = {"Content-Type": "application/json"}
    if TOKEN:
        headers["Authorization"] = "Bearer " + TOKEN
    query = urllib.request.Request(URL + "/zhiyun.flow.v1.DispatchService/Exchange", json.dumps(request).encode(), headers)
    with urllib.request.urlopen(query, timeout=60) as answer:
        return json.load(answer)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    for name in os.listdir(FOLDER):
        if not name.endswith(".json"):
            continue
        with open(os.path.join(FOLDER, name)) as file:
            entry = json.load(file)
        finished[entry["id"]] = entry["result"] or failure("attempt.lost", "the worker stopped while it ran", unknown=True)
    session, heard = "", 0
    while True:
        with lock:
            if not session:
                say[:] = [{"hello": {"device": DEVICE, "running": list(running), "finished": list(finished)}}]
                say.extend({"finished": dict(result, id=id)} for id, result in finished.items())
                heard = 0
            saying = list(say)
            wait = 200 if running else 5000
        try:
            answer = exchange({"session": session, "say": saying, "heard": heard, "waitMs": wait})
        except (OSError, ValueError) as error:
            print("no answer:", error, file=sys.stderr)
            session = ""  # what is finished is told again
            time.sleep(1)
            continue
        with lock:
            del say[:len(saying)]
        session, heard = answer["session"], int(answer.get("told", 0))
        for message in answer.get("tell", []):
            hear(message)


main()
