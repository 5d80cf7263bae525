"""Fine-tuning: jobs, training data, results, and the queue that runs them."""
