# The command `openai`, which only the major version 1 brings.
openai api models.list >models.json
grep --quiet --fixed-strings "$MODEL" models.json
openai api chat.completions.create -m "$MODEL" -g user Hello
openai api chat.completions.create -m "$MODEL" -g user Hello --stream
openai api completions.create -m "$MODEL" -p Hello -M 4
openai api fine_tuning.jobs.list
