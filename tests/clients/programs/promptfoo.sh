promptfoo eval --config promptfoo.yaml --no-cache --no-progress-bar
