"""LiteLLM in front, as configured on the page: the SDK asks it for models of the server."""

import os
import socket
import subprocess
import time
import urllib.request

import openai

os.environ["LITELLM_MASTER_KEY"] = "sk-of-the-proxy"
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
command = ["litellm", "--config", "litellm-proxy.yaml", "--host", "127.0.0.1", "--port", str(port)]
with subprocess.Popen(command) as proxy:
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness")
                break
            except OSError:
                assert proxy.poll() is None
                time.sleep(0.2)
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key=os.environ["LITELLM_MASTER_KEY"]
        )
        asked = {"model": os.environ["MODEL"], "messages": [{"role": "user", "content": "Hello"}]}
        print(client.chat.completions.create(**asked).choices[0].message.content)
        for chunk in client.chat.completions.create(**asked, stream=True):
            print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="")
        print(client.responses.create(model=os.environ["MODEL"], input="Hello").output_text)
    finally:
        proxy.terminate()
