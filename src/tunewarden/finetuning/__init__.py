"""Fine-tuning: jobs, what they train on, what they leave, and the queue that runs them."""
