# gptme with its default, tools; the demo's context is too short for its whole prompt.
gptme --non-interactive --no-confirm --model "local/$MODEL" --system short --tools none "Hello"
