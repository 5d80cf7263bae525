"""Open WebUI as installed, its login aside: its own page, in Chromium, sends a chat, with its built-in tools."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--user-data-dir={Path('profile').resolve()}",
)
SECONDS = 240


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


port, driver_port = free_port(), free_port()
url = f"http://127.0.0.1:{port}"
token = ""


def ask(path, fields=None, url=url):
    """GET, or POST with fields; None while the server does not answer."""
    body = None if fields is None else json.dumps(fields).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    request = urllib.request.Request(url + path, body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except OSError:
        return None


def wait_for(look):
    """Return what `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"nothing after {SECONDS} s")


def drive(path, fields):
    """Ask the browser's driver."""
    return ask(f"/session{path}", fields, f"http://127.0.0.1:{driver_port}")


def press(session, xpath, keys):
    """Type into an element of the page, once it is there; a new line clicks it."""
    found = drive(f"{session}/element", {"using": "xpath", "value": xpath})
    if found is None:
        return None
    element = f"{session}/element/{next(iter(found['value'].values()))}"
    return (
        drive(f"{element}/click", {}) if keys == "\n" else drive(f"{element}/value", {"text": keys})
    )


def answered():
    """The answer of the only chat, once it is whole."""
    for chat in ask("/api/v1/chats/") or []:
        history = ask(f"/api/v1/chats/{chat['id']}")["chat"]["history"]["messages"]
        for message in history.values():
            if message["role"] == "assistant" and (message.get("done") or message.get("error")):
                return message
    return None


if shutil.which("chromedriver") is None:
    sys.exit("Chromium is not installed (Debian: apt-get install chromium-driver)")
# Its login is off: the page needs none to send a chat.
settings = {"DATA_DIR": str(Path("data").resolve()), "PORT": str(port), "WEBUI_AUTH": "false"}
with Path("server.log").open("wb") as log:
    server = subprocess.Popen(
        ["bash", "-eu", "open-webui.serve"], env={**os.environ, **settings}, stdout=log, stderr=log
    )
with Path("driver.log").open("wb") as log:
    driver = subprocess.Popen(["chromedriver", f"--port={driver_port}"], stdout=log, stderr=log)
try:
    wait_for(lambda: ask("/health"))
    token = wait_for(lambda: ask("/api/v1/auths/signin", {"email": "", "password": ""}))["token"]
    models = [one["id"] for one in ask("/api/models")["data"]]
    print("models:", models)
    assert os.environ["MODEL"] in models
    options = {"goog:chromeOptions": {"args": list(FLAGS)}}
    started = wait_for(lambda: drive("", {"capabilities": {"alwaysMatch": options}}))
    session = f"/{started['value']['sessionId']}"
    drive(f"{session}/url", {"url": url})
    signed_in = {"script": "return localStorage.token || null", "args": []}
    wait_for(lambda: drive(f"{session}/execute/sync", signed_in)["value"])
    query = urllib.parse.urlencode({"models": os.environ["MODEL"]})
    drive(f"{session}/url", {"url": f"{url}/?{query}"})
    # What is new in the release lies over the page of an administrator until it is sent away.
    wait_for(lambda: press(session, '//button[contains(., "Let\'s Go")]', "\n"))
    wait_for(lambda: press(session, "//*[@id='chat-input']", "Hello\ue007"))
    answer = wait_for(answered)
    print("answer:", answer["content"], answer.get("error") or "")
    assert answer["content"]
    assert not answer.get("error")
finally:
    for process in (driver, server):
        process.terminate()
        process.wait()
    print(Path("server.log").read_text()[-3000:])
