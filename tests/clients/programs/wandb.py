"""W&B's logger of fine-tuning jobs: it waits for one, reads its result file and logs the metrics; offline."""

import json
import os

from openai import OpenAI
from wandb.integration.openai.fine_tuning import WandbLogger

client = OpenAI()
chat = {
    "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Ahoy!"}]
}
lines = "".join(json.dumps(chat) + "\n" for _ in range(10)).encode()
file = client.files.create(file=("chats.jsonl", lines), purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    model=os.environ["BASE"], training_file=file.id, hyperparameters={"n_epochs": 1}
)
# It looks for an older run of the job in W&B's cloud, which needs a login; and finds none.
WandbLogger._get_wandb_run = lambda _: None
WandbLogger.sync(fine_tune_job_id=job.id, openai_client=client, log_datasets=False)
print(client.fine_tuning.jobs.retrieve(job.id).status)
